//! Reads each setting from its flag or variable, collects every invalid one, and records the values in force.

use std::ffi::OsString;
use std::time::Duration;

use clap::ArgMatches;

use super::invalid::{InvalidSetting, InvalidSettings};
use super::parse;
use super::routes;
use super::table::Setting;
use super::values::Values;
use crate::route::Route;

/// The problem with a value that is not UTF-8.
const NOT_UTF8: &str = "not UTF-8 text";

/// A value as it was written, with its origin.
#[derive(Clone, Debug)]
pub(super) struct RawValue {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The origin of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Env,
}

/// A reader of settings. For an invalid value, it returns a placeholder that is never used, because [`Reader::finish`]
/// then fails.
pub(super) struct Reader<'a> {
    flags: &'a ArgMatches,
    env: &'a dyn Fn(&str) -> Option<OsString>,
    invalid: Vec<InvalidSetting>,
    in_force: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(flags: &'a ArgMatches, env: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self {
            flags,
            env,
            invalid: Vec::new(),
            in_force: Vec::new(),
        }
    }

    /// Returns the value as it was given. A variable that is not UTF-8 gets replacement characters, which `option` and
    /// `routes` reject.
    pub(super) fn given(&self, setting: &Setting) -> Option<RawValue> {
        // A command ignores the variables of settings that it does not have.
        if let Some(texts) = self.flags.try_get_many::<String>(setting.flag).ok()? {
            // Only a repeatable setting has several.
            let texts: Vec<_> = texts.map(String::as_str).collect();
            return Some(RawValue {
                text: texts.join(";"),
                origin: Origin::Flag,
            });
        }
        let text = (self.env)(&setting.env()).filter(|text| !text.is_empty())?;
        Some(RawValue {
            text: text.to_string_lossy().into_owned(),
            origin: Origin::Env,
        })
    }

    pub(super) fn is_set(&self, setting: &Setting) -> bool {
        self.given(setting).is_some()
    }

    /// Reads an optional setting. `parse` describes a problem as a phrase that does not repeat the value.
    pub(super) fn option<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = self.given(setting)?;
        let text = given.text.trim();
        let parsed = if text.contains(char::REPLACEMENT_CHARACTER) {
            Err(NOT_UTF8.to_owned())
        } else {
            parse(text)
        };
        match parsed {
            Ok(value) => {
                self.is_in_force(setting, text);
                Some(value)
            }
            Err(problem) => {
                self.refuse(InvalidSetting::of(setting, Some(&given), problem));
                None
            }
        }
    }

    /// Reads a setting with a default.
    pub(super) fn value<T>(&mut self, setting: &'static Setting, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let is_given = self.is_set(setting);
        self.option(setting, &parse).unwrap_or_else(|| {
            let default = setting.default().expect("a setting read by `value` has a default");
            if !is_given {
                self.is_in_force(setting, default);
            }
            parse(default).expect("every default is valid: a test parses all of them")
        })
    }

    /// Reads a duration within the bounds of its row.
    pub(super) fn duration(&mut self, setting: &'static Setting) -> Duration {
        let Values::Duration(least, most) = setting.values else {
            unreachable!(
                "--{} is declared as a duration: a test reads every setting",
                setting.flag
            );
        };
        self.value(setting, parse::duration(least, most))
    }

    /// Reads an optional count within the bound of its row.
    pub(super) fn count(&mut self, setting: &'static Setting) -> Option<usize> {
        let Values::Count(most) = setting.values else {
            unreachable!("--{} is declared as a count: a test reads every setting", setting.flag);
        };
        self.option(setting, parse::count(most))
    }

    /// Reads a size within the bounds of its row.
    pub(super) fn size(&mut self, setting: &'static Setting) -> usize {
        let Values::Size(least, most) = setting.values else {
            unreachable!("--{} is declared as a size: a test reads every setting", setting.flag);
        };
        self.value(setting, parse::size(least, most))
    }

    /// Reads routes.
    pub(super) fn routes(&mut self, setting: &'static Setting) -> Vec<Route> {
        let Some(given) = self.given(setting) else {
            return Vec::new();
        };
        if given.text.contains(char::REPLACEMENT_CHARACTER) {
            self.refuse(InvalidSetting::of(setting, Some(&given), NOT_UTF8.to_owned()));
            return Vec::new();
        }
        match routes::parse(&given.text) {
            Ok(routes) => {
                self.is_in_force(setting, &given.text);
                routes
            }
            Err(mistakes) => {
                self.refuse(InvalidSetting::of_routes(setting, &given, mistakes));
                Vec::new()
            }
        }
    }

    /// Reads a required setting; `why` describes its purpose.
    pub(super) fn required<T: Default>(
        &mut self,
        setting: &'static Setting,
        why: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        if !self.is_set(setting) {
            self.refuse(InvalidSetting::missing(setting, why));
        }
        self.option(setting, parse).unwrap_or_default()
    }

    /// Records the value of a setting that applies, given or by default, for [`Reader::finish`].
    pub(super) fn is_in_force(&mut self, setting: &Setting, text: &str) {
        let quoted = text.is_empty() || text.contains(|letter: char| letter.is_whitespace() || letter.is_control());
        let text = if quoted { format!("{text:?}") } else { text.to_owned() };
        self.in_force.push(format!("--{} {text}", setting.flag));
    }

    /// Returns true if this setting was found invalid.
    pub(super) fn has_refused(&self, setting: &Setting) -> bool {
        self.invalid.iter().any(|invalid| invalid.flag == Some(setting.flag))
    }

    pub(super) fn refuse(&mut self, invalid: InvalidSetting) {
        self.invalid.push(invalid);
    }

    pub(super) fn refuse_if_set(&mut self, setting: &'static Setting, problem: String) {
        if let Some(given) = self.given(setting) {
            self.refuse(InvalidSetting::of(setting, Some(&given), problem));
        }
    }

    /// Returns the values in force, as flags, or every invalid setting. The error refers to the `--help` of `command`.
    pub(super) fn finish(self, command: &str) -> Result<String, InvalidSettings> {
        InvalidSettings::unless_none(self.invalid, command)?;
        Ok(self.in_force.join(" "))
    }
}
