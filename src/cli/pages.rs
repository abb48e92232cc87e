//! What is made of the declarations: help, the manual page, completions of shells.
//! Invariant: all of it is pure text of [`COMMANDS`]; the files in `debian/` and `docs/ringroom.1` hold
//! the very same (a test compares them).

use super::declared::{COMMANDS, Command, CommandOption, Completes, NOTES, TITLE};
use std::fmt::Write;

/// The help of the program.
pub fn overview() -> String {
    let rows = COMMANDS.iter().map(|command| (command.name.to_owned(), command.about));
    let commands = rows.chain([("help".to_owned(), "Show the help of a command: ringroom help client")]);
    let general = [
        ("-h, --help".to_owned(), "Show this help, or that of the command"),
        ("-V, --version".to_owned(), "Show the version"),
    ];
    format!(
        "{TITLE}\n\nUsage: ringroom [COMMAND] [OPTIONS]\n\nCommands:\n{}\nOptions:\n{}\n{NOTES}",
        table(commands.collect()),
        table(general.into()),
    )
}

/// The help of one command.
pub fn help(command: &Command) -> String {
    let mut page = format!("{}\n", command.intro);
    for (at, usage) in command.usage.iter().enumerate() {
        page.push_str(if at == 0 { "\nUsage: ringroom " } else { "       ringroom " });
        page.push_str(usage);
        page.push('\n');
    }
    if !command.options.is_empty() {
        let rows = command.options.iter().map(|option| (named(option), option.help));
        page.push_str("\nOptions:\n");
        page.push_str(&table(rows.collect()));
    }
    if !command.notes.is_empty() {
        page.push('\n');
        page.push_str(command.notes);
    }
    page
}

fn named(option: &CommandOption) -> String {
    option.value.map_or_else(|| option.name.to_owned(), |value| format!("{} {value}", option.name))
}

/// Two columns.
fn table(rows: Vec<(String, &str)>) -> String {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for (left, right) in rows {
        let right = right.replace('\n', &format!("\n{:width$}", "", width = width + 2));
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {left:width$}{right}");
    }
    text
}

/// `ringroom.1`.
pub fn manual_page() -> String {
    let mut page = format!(
        ".\\\" Made from src/cli/declared.rs by `cargo run -- man`.\n\
         .TH RINGROOM 1 \"\" \"ringroom {}\" \"User Commands\"\n.SH NAME\n{}\n.SH SYNOPSIS\n",
        env!("CARGO_PKG_VERSION"),
        roff(TITLE),
    );
    for usage in COMMANDS.iter().flat_map(|command| command.usage) {
        let _ = writeln!(page, ".B ringroom\n{}\n.br", roff(usage));
    }
    page.push_str(
        ".SH DESCRIPTION\nOne process holds the WebSocket connections of a whole product and moves its messages \
         between them, in rooms.\nEvery member of a room sees the same messages in the same order.\n.SH COMMANDS\n",
    );
    for command in COMMANDS {
        let _ = writeln!(page, ".SS {}\n{}", command.name, roff(command.intro));
        for option in command.options {
            let value = option.value.map_or(String::new(), |value| format!(" \\fI{}\\fR", roff(value)));
            let _ =
                writeln!(page, ".TP\n\\fB{}\\fR{value}\n{}", roff(option.name), roff(&option.help.replace('\n', " ")));
        }
        page.push_str(&blocks(command.notes));
    }
    page.push_str(
        ".SH OPTIONS\n.TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nShow the help, or that of a command.\n\
         .TP\n\\fB\\-V\\fR, \\fB\\-\\-version\\fR\nShow the version.\n.SH ENVIRONMENT\n",
    );
    for (name, about) in ENVIRONMENT {
        let _ = writeln!(page, ".TP\n.B {}\n{}", roff(name), roff(about));
    }
    page.push_str(".SH FILES\n");
    for (path, about) in FILES {
        let _ = writeln!(page, ".TP\n.I {}\n{}", roff(path), roff(about));
    }
    page.push_str(".SH EXAMPLES\n");
    page.push_str(&blocks(NOTES).replacen(".PP\n", "", 1));
    page
}

const ENVIRONMENT: [(&str, &str); 3] = [
    ("RINGROOM_JWT_SECRET", "The secret that tokens are signed with, 32 bytes or more."),
    ("RINGROOM_TOKEN", "The token that client takes where no --token is given."),
    ("RINGROOM_SECTION__KEY", "Any other key of the configuration: see ringroom config sample."),
];
const FILES: [(&str, &str); 4] = [
    ("/etc/ringroom/ringroom.toml", "The configuration."),
    ("/etc/ringroom/environment", "The environment of the service, the secret among it."),
    ("/usr/share/ringroom/tuning", "The profiles, to read and to begin one of your own with."),
    ("/var/lib/ringroom/tune-undo.json", "What tune apply changed, for tune undo."),
];

/// Paragraphs; lines that are set in stay as they are.
fn blocks(text: &str) -> String {
    let mut page = String::new();
    let mut is_set_in = false;
    let mut begins = true;
    for line in text.lines() {
        if line.starts_with("  ") != is_set_in {
            page.push_str(if is_set_in { ".fi\n" } else { ".nf\n" });
            is_set_in = !is_set_in;
        }
        if line.is_empty() {
            begins = true;
            continue;
        }
        if std::mem::take(&mut begins) {
            page.push_str(".PP\n");
        }
        page.push_str(&roff(line));
        page.push('\n');
    }
    if is_set_in {
        page.push_str(".fi\n");
    }
    page
}

/// Text that roff takes as it is.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let text = text.replace('\'', "\\(aq").replace('`', "\\(ga").replace('^', "\\(ha").replace('~', "\\(ti");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

pub fn bash() -> String {
    let mut script = String::from(
        "# Completions of ringroom for bash, made by `ringroom completions bash`.\n\
         _ringroom() {\n    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n    \
         local command= at words\n    COMPREPLY=()\n    for ((at = 1; at < COMP_CWORD; at++)); do\n        \
         case ${COMP_WORDS[at]} in\n",
    );
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    let _ = writeln!(script, "            {}|help) command=${{COMP_WORDS[at]}}; break ;;", names.join("|"));
    script.push_str("        esac\n    done\n    case $command:$previous in\n");
    for command in COMMANDS {
        // What stands without a command is for `serve`.
        let of = if command.name == "serve" { "serve|" } else { command.name };
        for option in command.options().filter(|option| option.value.is_some()) {
            let complete = match option.completes {
                Completes::Nothing => "return".into(),
                Completes::Files => "COMPREPLY=($(compgen -f -- \"$current\")); return".into(),
                Completes::Folders => "COMPREPLY=($(compgen -d -- \"$current\")); return".into(),
                Completes::Words(words) => {
                    format!("COMPREPLY=($(compgen -f -W '{}' -- \"$current\")); return", words.join(" "))
                }
            };
            let patterns: Vec<_> = of.split('|').map(|of| format!("{of}:{}", option.name)).collect();
            let _ = writeln!(script, "        {}) {complete} ;;", patterns.join("|"));
        }
    }
    script.push_str("    esac\n    case $command in\n");
    for command in COMMANDS {
        let _ = writeln!(script, "        {}) words='{}' ;;", command.name, all_words(command).join(" "));
    }
    let _ = writeln!(script, "        help) words='{}' ;;", names.join(" "));
    let _ = writeln!(
        script,
        "        *) words='{} help --version {}' ;;",
        names.join(" "),
        all_words(COMMANDS[0]).join(" ")
    );
    script.push_str(
        "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n    \
         if [[ $command == config && ${#COMPREPLY[@]} == 0 ]]; then COMPREPLY=($(compgen -f -- \"$current\")); fi\n}\n\
         complete -o filenames -F _ringroom ringroom\n",
    );
    script
}

fn all_words(command: &Command) -> Vec<&'static str> {
    command.words.iter().copied().chain(command.options().map(|option| option.name)).chain(["--help"]).collect()
}

pub fn zsh() -> String {
    let mut script = String::from(
        "#compdef ringroom\n# Completions of ringroom for zsh, made by `ringroom completions zsh`.\n\
         _ringroom() {\n    local -a commands\n    commands=(\n",
    );
    for command in COMMANDS {
        let _ = writeln!(script, "        '{}:{}'", command.name, quoted(command.about).replace(':', "\\:"));
    }
    script.push_str(
        "        'help:Show the help of a command'\n    )\n    local command=serve at\n    \
         for ((at = 2; at < CURRENT; at++)); do\n        \
         if (( ${commands[(I)${words[at]}:*]} )); then command=${words[at]}; break; fi\n    done\n    \
         if (( CURRENT == 2 )) && [[ ${words[CURRENT]} != -* ]]; then\n        \
         _describe command commands\n        return\n    fi\n    case $command in\n",
    );
    for command in COMMANDS {
        let _ = write!(script, "        {}) _arguments", command.name);
        for option in command.options() {
            let help = quoted(option.help).replace('[', "(").replace(']', ")").replace(':', "\\:");
            let value = match (option.value, option.completes) {
                (None, _) => String::new(),
                (Some(value), Completes::Nothing) => format!(":{value}: "),
                (Some(value), Completes::Files) => format!(":{value}:_files"),
                (Some(value), Completes::Folders) => format!(":{value}:_files -/"),
                (Some(value), Completes::Words(words)) => format!(":{value}:({})", words.join(" ")),
            };
            let _ = write!(script, " \\\n            '{}[{help}]{value}'", option.name);
        }
        let _ = write!(script, " \\\n            '--help[Show the help]'");
        if !command.words.is_empty() {
            // The command itself is the first word.
            let _ = write!(script, " \\\n            '1: :' '2:what:({})' '3:file:_files'", command.words.join(" "));
        }
        script.push_str(" ;;\n");
    }
    script.push_str(
        "        help) _describe command commands ;;\n    esac\n}\n\
         if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _ringroom \"$@\"; else compdef _ringroom ringroom; fi\n",
    );
    script
}

fn quoted(text: &str) -> String {
    text.replace('\n', " ").replace('\'', "'\\''")
}

pub fn fish() -> String {
    let mut script = String::from(
        "# Completions of ringroom for fish, made by `ringroom completions fish`.\ncomplete -c ringroom -f\n",
    );
    let line = |script: &mut String, when: &str, rest: &str| {
        let _ = writeln!(script, "complete -c ringroom -n '{when}' {rest}");
    };
    for command in COMMANDS {
        let about = quoted_for_fish(command.about);
        line(&mut script, "__fish_use_subcommand", &format!("-a {} -d '{about}'", command.name));
    }
    line(&mut script, "__fish_use_subcommand", "-a help -d 'Show the help of a command'");
    for command in COMMANDS {
        let seen = format!("__fish_seen_subcommand_from {}", command.name);
        // What stands without a command is for `serve`.
        let when = if command.name == "serve" { format!("__fish_use_subcommand; or {seen}") } else { seen };
        if !command.words.is_empty() {
            line(&mut script, &when, &format!("-a '{}'", command.words.join(" ")));
        }
        for option in command.options() {
            let value = match (option.value, option.completes) {
                (None, _) => String::new(),
                (Some(_), Completes::Nothing) => " -x".into(),
                (Some(_), Completes::Files) => " -r -F".into(),
                (Some(_), Completes::Folders) => " -x -a '(__fish_complete_directories)'".into(),
                (Some(_), Completes::Words(words)) => format!(" -r -F -a '{}'", words.join(" ")),
            };
            let name = option.name.trim_start_matches('-');
            line(&mut script, &when, &format!("-l {name}{value} -d '{}'", quoted_for_fish(option.help)));
        }
    }
    script.push_str("complete -c ringroom -s h -l help -d 'Show the help'\n");
    script.push_str("complete -c ringroom -n __fish_use_subcommand -s V -l version -d 'Show the version'\n");
    script
}

fn quoted_for_fish(text: &str) -> String {
    text.replace('\n', " ").replace('\\', "\\\\").replace('\'', "\\'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_is_in_the_help_the_manual_page_and_each_completion() {
        let page = manual_page();
        for command in COMMANDS {
            assert!(overview().contains(&format!("\n  {} ", command.name)), "{}", command.name);
            assert!(page.contains(&format!(".SS {}\n", command.name)), "{}", command.name);
            for option in command.options {
                assert!(help(command).contains(&format!("\n  {}", named(option))), "{}", option.name);
                assert!(page.contains(&format!("\\fB{}\\fR", roff(option.name))), "{}", option.name);
                assert!(bash().contains(option.name) && zsh().contains(option.name), "{}", option.name);
                assert!(fish().contains(&format!("-l {}", &option.name[2..])), "{}", option.name);
            }
        }
    }

    #[test]
    fn the_files_that_are_installed_are_those_that_the_declarations_make() {
        for (path, text, words) in [
            ("docs/ringroom.1", manual_page(), "man"),
            ("debian/completions/ringroom.bash", bash(), "completions bash"),
            ("debian/completions/_ringroom", zsh(), "completions zsh"),
            ("debian/completions/ringroom.fish", fish(), "completions fish"),
        ] {
            let written = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR")));
            assert!(written.is_ok_and(|written| written == text), "write it anew: cargo run -- {words} > {path}");
        }
    }

    #[test]
    fn roff_takes_no_letter_of_a_text_for_a_command() {
        assert_eq!(roff(".a\\b-c'"), "\\&.a\\eb\\-c\\(aq");
        assert_eq!(blocks("a\n  b\nc\n\nd\n"), ".PP\na\n.nf\n  b\n.fi\nc\n.PP\nd\n");
        assert!(manual_page().lines().all(|line| !line.starts_with('\'')));
    }
}
