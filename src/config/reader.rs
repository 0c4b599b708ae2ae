//! Takes each setting from where it was given, and collects what is wrong with them.

use std::ffi::OsString;

use clap::ArgMatches;

use super::mistake::{Mistake, Mistakes};
use super::table::Setting;

/// A value as it was written, and where.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Env,
}

/// Reads settings; what it returns after a mistake is only a stand-in, and [`Reader::finish`] keeps it from being used.
pub(super) struct Reader<'a> {
    flags: &'a ArgMatches,
    env: &'a dyn Fn(&str) -> Option<OsString>,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(flags: &'a ArgMatches, env: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self {
            flags,
            env,
            mistakes: Vec::new(),
        }
    }

    /// What was given. A variable that is not UTF-8 is shown with replacement characters, which no parser takes for valid.
    pub(super) fn given(&self, setting: &Setting) -> Option<Given> {
        if let Some(text) = self.flags.get_one::<String>(setting.flag) {
            return Some(Given {
                text: text.clone(),
                origin: Origin::Flag,
            });
        }
        let text = (self.env)(&setting.env()).filter(|text| !text.is_empty())?;
        Some(Given {
            text: text.to_string_lossy().into_owned(),
            origin: Origin::Env,
        })
    }

    pub(super) fn is_set(&self, setting: &Setting) -> bool {
        self.given(setting).is_some()
    }

    /// A setting that may be left out. `parse` says what is wrong as a phrase that does not repeat the value.
    pub(super) fn option<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = self.given(setting)?;
        let parsed = if given.text.contains(char::REPLACEMENT_CHARACTER) {
            Err("not UTF-8 text".to_owned())
        } else {
            parse(given.text.trim())
        };
        parsed
            .map_err(|problem| self.mistakes.push(Mistake::of(setting, Some(&given), problem)))
            .ok()
    }

    /// A setting with a default.
    pub(super) fn value<T>(&mut self, setting: &'static Setting, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.option(setting, &parse).unwrap_or_else(|| {
            let default = setting.default().expect("a setting read by `value` has a default");
            parse(default).expect("every default is valid: a test reads them all")
        })
    }

    /// A setting that has to be there; `why` says what for.
    pub(super) fn needed<T: Default>(
        &mut self,
        setting: &'static Setting,
        why: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        if !self.is_set(setting) {
            self.refuse(Mistake::missing(setting, why));
        }
        self.option(setting, parse).unwrap_or_default()
    }

    /// Whether something was found wrong with this setting.
    pub(super) fn has_refused(&self, setting: &Setting) -> bool {
        self.mistakes.iter().any(|mistake| mistake.flag == Some(setting.flag))
    }

    pub(super) fn refuse(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    pub(super) fn refuse_if_set(&mut self, setting: &'static Setting, problem: String) {
        if let Some(given) = self.given(setting) {
            self.refuse(Mistake::of(setting, Some(&given), problem));
        }
    }

    /// All mistakes, if there were any; `command` is what explains its settings with `--help`.
    pub(super) fn finish(self, command: &str) -> Result<(), Mistakes> {
        Mistakes::unless_none(self.mistakes, command)
    }
}
