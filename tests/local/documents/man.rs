//! Man pages and shell completions, from the one definition of the command line. `make man` writes them into `target/`;
//! they are not committed.

use std::fs;
use std::path::Path;
use std::process::{Command as Process, Stdio};

use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use pgnorth::config::{COMMANDS, CommandRow, command_line};

/// Variable that `make man` sets: the folder to write to.
const WRITE: &str = "PGNORTH_WRITE_MAN";
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "pgnorth.bash"),
    (Shell::Zsh, "_pgnorth"),
    (Shell::Fish, "pgnorth.fish"),
];

#[test]
fn every_command_has_a_man_page_with_its_settings_and_exit_statuses() {
    for row in COMMANDS {
        let name = row.typed().replace(' ', "-");
        let page = man(row);
        for setting in row.settings() {
            let flag = setting.flag.replace('-', "\\-");
            assert!(page.contains(&format!("\\-\\-{flag}")), "{name}: --{}", setting.flag);
            assert!(page.contains(&setting.env()), "{name}: {}", setting.env());
        }
        for (status, when) in row.exit_statuses {
            assert!(
                page.contains(&format!(".TP\n\\fB{status}\\fR\n{when}")),
                "{name}: {when}\n{page}"
            );
        }
        lint(&name, &page);
        write(&format!("man/{name}.1"), page.as_bytes());
    }
}

/// A real bash loads the script and asks it for completions.
#[test]
fn bash_completes_flags_and_subcommands() {
    for (words, expected) in [
        ("pgnorth pub", "publish"),
        ("pgnorth --max", "--max-sessions"),
        ("pgnorth cut --mem", "--member"),
    ] {
        let script = format!(
            "source /dev/stdin; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _pgnorth pgnorth \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let output = piped(Process::new("bash").args(["-c", &script]), &completion(Shell::Bash));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            expected,
            "{words}: {output:?}"
        );
    }
}

#[test]
fn completions_name_every_flag() {
    for (shell, file) in SHELLS {
        let script = completion(shell);
        let text = String::from_utf8(script.clone()).unwrap();
        for setting in COMMANDS.into_iter().flat_map(CommandRow::settings) {
            let name = if shell == Shell::Fish {
                format!("-l {}", setting.flag)
            } else {
                format!("--{}", setting.flag)
            };
            assert!(text.contains(&name), "{file}: {name}");
        }
        write(&format!("completions/{file}"), &script);
    }
}

fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    generate(shell, &mut command_line(), "pgnorth", &mut script);
    script
}

/// Returns the page. Its examples and exit statuses are sections of their own, instead of the help's last paragraphs.
fn man(row: &CommandRow) -> String {
    let mut page = Vec::new();
    let man = Man::new(command(row)).manual("pgnorth");
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    if row.name.is_none() {
        page += ".SH SUBCOMMANDS\n";
        for subcommand in COMMANDS.iter().filter(|row| row.name.is_some()) {
            page += &format!(
                ".TP\n\\fB{}\\fR(1)\n{}\n",
                subcommand.typed().replace(' ', "\\-"),
                subcommand.about
            );
        }
    }
    page += ".SH \"EXIT STATUS\"\n";
    for (status, when) in row.exit_statuses {
        page += &format!(".TP\n\\fB{status}\\fR\n{when}\n");
    }
    page += &format!(
        ".SH EXAMPLES\n.nf\n{}\n.fi\n",
        row.examples.replace('\\', "\\e").replace('-', "\\-")
    );
    page
}

fn command(row: &CommandRow) -> Command {
    // clap's names are static.
    let name: &'static str = row.typed().replace(' ', "-").leak();
    let mut whole = command_line();
    whole.build();
    let command = match row.name {
        Some(subcommand) => whole
            .find_subcommand(subcommand)
            .expect("every row is a subcommand")
            .clone(),
        None => whole,
    };
    command
        .name(name)
        .display_name(name)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help("")
}

/// Returns groff's warnings, if groff is installed: on a Debian without it nobody reads man pages.
fn lint(name: &str, page: &str) {
    let mut groff = Process::new("groff");
    if groff.arg("--version").output().is_err() {
        println!("{name}: not checked by groff, which is not installed");
        return;
    }
    let output = piped(
        Process::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]),
        page.as_bytes(),
    );
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn piped(command: &mut Process, input: &[u8]) -> std::process::Output {
    use std::io::Write;
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(input).unwrap();
    process.wait_with_output().unwrap()
}

fn write(file: &str, content: &[u8]) {
    let Some(folder) = std::env::var_os(WRITE) else { return };
    let path = Path::new(&folder).join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
