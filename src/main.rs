//! Arguments to command; nothing else.

fn main() -> std::process::ExitCode {
    restante::app::command::main()
}
