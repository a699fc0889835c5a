//! A full disk, a locked database, a PostgreSQL that restarts, all under load: callers are told
//! with 503, what was acknowledged stays, and the same process works again afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use feilun_store::StoreUrl;
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use sqlx::{Connection as _, Executor as _};

use crate::check::check;
use crate::load::{Ledger, load};
use crate::site::Site;
use crate::up::{UP, Up, model_file, without_settings};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a caller is told while the store cannot take more: before an answer, or in its stream.
const UNAVAILABLE: [&str; 2] = ["503 store_unavailable", "200 store_unavailable"];

#[track_caller]
fn wait_until(ledger: &Mutex<Ledger>, what: &str, is_so: impl Fn(&Ledger) -> bool) {
    let start = Instant::now();
    while !is_so(&ledger.lock().unwrap()) {
        assert!(start.elapsed() < PATIENCE, "{what}: {:?}", ledger.lock().unwrap().refusals);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Answers come; then there is trouble, and callers are told; then there is none, and answers come
/// again.
fn through_trouble(up: &Up, begin: impl FnOnce(), end: impl FnOnce()) -> Ledger {
    let ledger = load(&up.url, |ledger| {
        wait_until(ledger, "no answers before", |ledger| ledger.turns.len() >= 10);
        begin();
        wait_until(ledger, "nobody was refused", |ledger| {
            UNAVAILABLE.iter().any(|code| ledger.refusals.contains_key(*code))
        });
        end();
        let before = ledger.lock().unwrap().turns.len();
        wait_until(ledger, "no answers afterwards", |ledger| ledger.turns.len() >= before + 10);
    });
    let is_clear = |code: &String| UNAVAILABLE.contains(&code.as_str());
    assert!(ledger.refusals.keys().all(is_clear), "{:?}\n{}", ledger.refusals, up.last_words());
    assert_eq!(ledger.num_broken, 0, "{}", up.last_words());
    assert_eq!(up.get("/readyz").0, 200);
    println!(
        "{} turns and {} pieces of feedback acknowledged, refused {:?}",
        ledger.turns.len(),
        ledger.feedback.len(),
        ledger.refusals
    );
    ledger
}

#[test]
fn a_locked_database_is_told_and_then_works_again() {
    let site = Site::sqlite();
    let up = site.start();
    let path = site.data().join("feilun.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // Another process to the server: this one.
    let lock = || {
        runtime.block_on(async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
            let options = options.busy_timeout(PATIENCE);
            let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
            connection.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await.unwrap();
            connection
        })
    };
    let locked = Mutex::new(None);
    let ledger = through_trouble(
        &up,
        || *locked.lock().unwrap() = Some(lock()),
        || {
            let mut connection = locked.lock().unwrap().take().unwrap();
            runtime.block_on(async {
                connection.execute(sqlx::raw_sql("ROLLBACK")).await.unwrap();
                connection.close().await.unwrap();
            });
        },
    );
    up.terminate();
    check(&site.url, &ledger, None);
}

#[test]
fn a_postgres_that_restarts_under_load_loses_nothing() {
    let mut site = Site::postgres();
    let up = site.start();
    let cluster = Mutex::new(site.cluster.take().unwrap());
    let mut all = Ledger::default();
    // In order, and by kill: after the second it recovers from its log.
    for signal in [Signal::INT, Signal::QUIT] {
        let ledger = through_trouble(
            &up,
            || cluster.lock().unwrap().end(signal).unwrap(),
            || cluster.lock().unwrap().run().unwrap(),
        );
        all.add(ledger);
    }
    check(&site.url, &all, None);
    up.terminate();
}

/// A limit on the size of files stands for a full disk where nothing can be mounted: writes fail
/// in the middle of a file.
#[test]
fn a_write_that_fails_in_the_middle_loses_nothing() {
    let site = Site::sqlite();
    // The signal that comes with it would end the process.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_feilun")]);
    without_settings(&mut command);
    command.args(UP).arg("--model").arg(model_file()).env("FEILUN_DATA_DIR", site.data());
    let up = Up::start_command(command);
    let limit = |bytes: Option<u64>| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(up.process()), Resource::Fsize, limit).unwrap();
    };
    let log = site.data().join("feilun.db-wal");
    let ledger = through_trouble(
        &up,
        || limit(Some(std::fs::metadata(&log).unwrap().len() + 30_000)),
        || limit(None),
    );
    up.terminate();
    check(&site.url, &ledger, None);
}

/// A disk of its own, where the system lets us mount one.
#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let unshare = ["--user", "--map-root-user", "--mount"];
    let probe = Command::new("unshare").args(unshare).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        // Said aloud; the test above covers the same code.
        println!("this system lets nobody mount a small disk");
        return;
    }
    let line = format!("mount -t tmpfs -o size=16m none '{}' && exec \"$@\"", disk.display());
    let mut command = Command::new("unshare");
    without_settings(&mut command);
    command.args(unshare).args(["sh", "-c", &line, "sh"]).arg(env!("CARGO_BIN_EXE_feilun"));
    command.args(UP).arg("--model").arg(model_file()).env("FEILUN_DATA_DIR", &disk);
    // Each program becomes the next, so the process that `Up` knows is the server.
    let up = Up::start_command(command);
    // The mount is the server's alone, and this is the way to it.
    let inside = PathBuf::from(format!("/proc/{}/root", up.process().as_raw_nonzero()));
    let inside = inside.join(disk.strip_prefix("/").unwrap());
    let filler = inside.join("filler");
    let ledger = through_trouble(&up, || fill(&filler), || std::fs::remove_file(&filler).unwrap());
    // The disk goes with the process, so what is on it is copied before; nobody writes now.
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    for name in ["feilun.db", "feilun.db-wal"] {
        std::fs::copy(inside.join(name), kept.join(name)).unwrap();
    }
    up.terminate();
    check(&StoreUrl::sqlite(kept.join("feilun.db")), &ledger, None);
}

/// Writes until there is no room.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}
