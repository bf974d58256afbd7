//! Writes the inputs to start from to fuzz/corpus/TARGET.

fn main() -> std::io::Result<()> {
    for target in pmemsim_fuzz::TARGETS {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        std::fs::create_dir_all(&directory)?;
        for (n, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{n}")), seed)?;
        }
    }
    Ok(())
}
