//! What goes into the shell and the manual: completion scripts and man pages.

use std::path::Path;

use crate::{error::CliError, run};

/// Prints a completion script.
pub fn completion(shell: clap_complete::Shell) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut visible(run::command(), "weft"), "weft", &mut text);
    std::io::Write::write_all(&mut std::io::stdout(), &text)?;
    Ok(())
}

/// The command without its hidden children, which clap completes all the same: what is not built
/// is not offered. clap cannot take a child away, so a group with hidden ones is made anew.
fn visible(command: clap::Command, name: &'static str) -> clap::Command {
    let mut fresh = clap::Command::new(name)
        .about(command.get_about().cloned().unwrap_or_default())
        .args(command.get_arguments().cloned());
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        fresh = fresh.subcommand(match child.get_name() {
            "cluster" => visible(child.clone(), "cluster"),
            "network" => visible(child.clone(), "network"),
            _ => child.clone(),
        });
    }
    fresh
}

/// Writes one page for each command into a directory, which is made if it does not exist.
pub fn man(dir: &Path) -> Result<(), CliError> {
    let failed = |source| CliError::Io { what: dir.display().to_string(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(run::command(), dir).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page_and_no_unbuilt_one() {
        let dir = tempfile::tempdir().unwrap();
        man(dir.path()).unwrap();
        let pages: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for page in [
            "weft.1",
            "weft-service-create.1",
            "weft-cluster-join.1",
            "weft-exec.1",
            "weft-run.1",
            "weft-container-run.1",
        ] {
            assert!(pages.iter().any(|found| found == page), "{page} in {pages:?}");
        }
        assert!(!pages.iter().any(|found| found.contains("weft-trace")), "{pages:?}");
    }

    #[test]
    fn each_shell_gets_a_script() {
        for shell in
            [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish]
        {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut visible(run::command(), "weft"), "weft", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("service") && text.contains("join-token"), "{shell}");
            assert!(!text.contains("unlock-key"), "{shell} completes what is not built");
        }
    }
}
