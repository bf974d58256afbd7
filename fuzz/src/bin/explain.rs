//! Shows what an input of the target `execute` does, instruction by instruction, up to where its ways to run part.

fn main() -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        pmemsim_fuzz::execute::explain::explain(&std::fs::read(path)?);
    }
    Ok(())
}
