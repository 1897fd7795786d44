//! Looks for every secret of a run of the tests in everything that they showed.
#![forbid(unsafe_code)]

use vaulttmpfs_tests::find_leaks;

fn main() -> Result<(), String> {
    let directory = std::env::args_os().nth(1);
    let directory =
        directory.ok_or("usage: leaks DIRECTORY, where the tests have kept what they showed")?;
    println!("{}", find_leaks(directory.as_ref())?);
    Ok(())
}
