pub struct Options {
    pub listen: Option<String>,
    pub ops: Option<String>,
    pub shards: Option<usize>,
    pub profile: Option<String>,
    pub config: Option<std::path::PathBuf>,
    pub dev: bool,
}
pub struct Failed {
    pub message: String,
    pub exit: u8,
}
pub fn serve(_: Options) -> Result<(), Failed> {
    Ok(())
}
