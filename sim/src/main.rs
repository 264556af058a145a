//! The `moesim` binary: the command line over the built-in policies.

fn main() -> std::process::ExitCode {
    moesim::cli::main(moesim::registry::Registry::builtin())
}
