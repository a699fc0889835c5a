//! The ways to build the peer. Which is the fastest depends on the machine and the test, so a
//! comparison tries each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;

use super::{is_installed, run_logged};
use crate::say;

/// What is built together. Only what is measured: all of llama.cpp would take an hour.
pub(super) struct Programs {
    targets: &'static [&'static str],
    /// A file that says that they are built.
    done: &'static str,
}

/// Those that measure the engine.
pub(super) const BENCHES: Programs =
    Programs { targets: &["llama-bench", "llama-batched-bench"], done: ".done" };
/// The server.
pub(super) const SERVER: Programs = Programs { targets: &["llama-server"], done: ".done-server" };

/// A release build for this very machine, static, and without anything that is fetched.
const OPTIONS: [&str; 13] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=ON",
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
];

const NO_AMX: &str = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16";

/// One way to build.
pub(super) struct Recipe {
    /// In reports, and the name of the build folder.
    pub(super) name: &'static str,
    c: &'static str,
    cxx: &'static str,
    /// Flags for both languages.
    flags: &'static str,
}

/// The peer's programs, built.
pub(crate) struct Build {
    /// How it was built.
    pub(crate) name: &'static str,
    /// The folder of its programs.
    pub(crate) programs: PathBuf,
}

/// What this machine can build.
///
/// GCC 12 miscompiles llama.cpp's AMX path (the tile configuration's stores are dropped), so on
/// a machine with AMX it builds without, and clang both ways.
pub(super) fn recipes() -> anyhow::Result<Vec<Recipe>> {
    if !is_installed("cmake") {
        bail!("cmake is not installed; on Debian: apt-get install cmake clang libomp-dev");
    }
    let amx = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("amx_tile"));
    let recipe = |name, c, cxx, flags| Recipe { name, c, cxx, flags };
    let mut recipes = Vec::new();
    if is_installed("clang++") {
        recipes.push(recipe("clang", "clang", "clang++", ""));
        if amx {
            recipes.push(recipe("clang-no-amx", "clang", "clang++", NO_AMX));
        }
    }
    if is_installed("g++") {
        let (name, flags) = if amx { ("gcc-no-amx", NO_AMX) } else { ("gcc", "") };
        recipes.push(recipe(name, "gcc", "g++", flags));
    }
    if recipes.is_empty() {
        bail!("neither clang nor gcc is installed; on Debian: apt-get install clang libomp-dev");
    }
    Ok(recipes)
}

impl Recipe {
    /// Builds in `folder`, unless that was done before.
    pub(super) fn make(
        &self,
        programs: &Programs,
        source: &Path,
        folder: &Path,
    ) -> anyhow::Result<Build> {
        let build = folder.join(format!("build-{}", self.name));
        let done = build.join(programs.done);
        if !done.exists() {
            let log = folder.join(format!("build-{}.log", self.name));
            say(&format!("building the peer with {} (several minutes)", self.name));
            run_logged(&mut self.configure(source, &build), &log)?;
            let mut compile = Command::new("cmake");
            compile.arg("--build").arg(&build).arg("--parallel").arg(num_jobs().to_string());
            compile.arg("--target").args(programs.targets);
            run_logged(&mut compile, &log)?;
            std::fs::write(&done, "")?;
        }
        Ok(Build { name: self.name, programs: build.join("bin") })
    }

    fn configure(&self, source: &Path, build: &Path) -> Command {
        let mut cmake = Command::new("cmake");
        cmake.arg("-S").arg(source).arg("-B").arg(build).args(OPTIONS);
        cmake.arg(format!("-DCMAKE_C_COMPILER={}", self.c));
        cmake.arg(format!("-DCMAKE_CXX_COMPILER={}", self.cxx));
        cmake.arg(format!("-DCMAKE_C_FLAGS={}", self.flags));
        cmake.arg(format!("-DCMAKE_CXX_FLAGS={}", self.flags));
        cmake
    }
}

fn num_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
