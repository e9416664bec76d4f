//! The lifeboat command: arguments and environment in; text, JSON and exit codes out.
//!
//! Invariant: the only crate that prints, exits or reads the environment, and it holds no business rule.

mod args;
mod commands;
mod demo;
mod fault;
mod init;
mod output;
mod progress;
mod secrets;
mod serve;
mod show;
mod stop;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use lifeboat_base::failure::FailureKind;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let recovering = commands::archive::is_fetch(std::env::args_os());
            // A closed pipe is no reason to change the exit code.
            drop(error.print());
            if asked {
                return ExitCode::SUCCESS;
            }
            if fault::wants_json(std::env::args_os()) {
                fault::usage(&error.render().to_string(), &output::Output::new(true));
            }
            return if recovering { commands::archive::stop(FailureKind::Usage) } else { ExitCode::from(2) };
        }
    };
    let output = output::Output::new(args.json);
    if let args::Command::Wal { action: args::WalAction::Fetch { .. } } = &args.command {
        return commands::archive::fetch(&args, &output);
    }
    let archiving = matches!(&args.command, args::Command::Wal { action: args::WalAction::Push { .. } });
    match commands::run(args, &output) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(kind)) => ExitCode::from(kind.exit_code()),
        Err(error) => {
            if archiving {
                fault::print_line(&error, error.kind().exit_code(), &output);
            } else {
                fault::print(&error, &output);
            }
            ExitCode::from(error.kind().exit_code())
        }
    }
}
