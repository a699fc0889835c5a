//! A full disk, a locked database, a PostgreSQL that restarts: clear errors, recovery without a
//! restart of ours, nothing acknowledged lost.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feilun_store::audit::Actor;
use feilun_store::digest::ConfigHash;
use feilun_store::id::TurnId;
use feilun_store::turns::NewTurn;
use feilun_store::{Store, StoreError, StoreOptions};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;

use crate::child::{Said, Worker, derived};
use crate::cluster::Cluster;
use crate::site::{Site, block_on, turn};

fn large(config: ConfigHash, bytes: usize) -> NewTurn {
    NewTurn { request: json!("x".repeat(bytes)), ..turn(config) }
}

#[test]
fn a_full_database_says_so_and_works_again_when_there_is_room() {
    let site = Site::sqlite();
    block_on(async {
        let options = StoreOptions { database_bytes_max: Some(2 << 20), ..site.options() };
        let store = Store::open(&site.url, options).await.unwrap();
        let config = store.record_config(&json!(1)).await.unwrap();
        let mut acknowledged = Vec::new();
        let error = loop {
            let new = large(config, 50_000);
            match store.record_turn(new.clone()).await {
                Ok(()) => acknowledged.push(new),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Full { .. }) && error.is_transient(), "{error}");
        assert!(acknowledged.len() > 10, "{}", acknowledged.len());
        for turn in &acknowledged {
            assert_eq!(&store.turn(turn.id).await.unwrap().recorded, turn);
        }
        let gone = acknowledged.swap_remove(0);
        let by = Actor::Operator;
        // One may not be enough: pages are freed, and deleting asks for some.
        store.delete_conversation(gone.conversation, by).await.unwrap();
        store.delete_conversation(acknowledged.swap_remove(0).conversation, by).await.unwrap();
        store.record_turn(large(config, 50_000)).await.unwrap();
        for turn in &acknowledged {
            assert_eq!(&store.turn(turn.id).await.unwrap().recorded, turn);
        }
    });
}

#[test]
fn a_write_without_room_fails_alone() {
    let site = Site::sqlite();
    block_on(async {
        let options = StoreOptions { database_bytes_max: Some(2 << 20), ..site.options() };
        let store = Store::open(&site.url, options).await.unwrap();
        let config = store.record_config(&json!(1)).await.unwrap();
        let mut turns: Vec<NewTurn> = (0..20).map(|_| turn(config)).collect();
        turns.insert(10, large(config, 4 << 20));
        let outcomes = join_all(turns.iter().map(|turn| store.record_turn(turn.clone()))).await;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Err(StoreError::Full { .. }) if index == 10 => (),
                Ok(()) if index != 10 => (),
                other => panic!("{index}: {other:?}"),
            }
        }
    });
}

/// A limit on the size of files stands for a full disk where nothing can be mounted: writes fail
/// in the middle of a file.
#[test]
fn a_write_that_fails_in_the_middle_loses_nothing() {
    let site = Site::sqlite();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$@\"", "sh"]);
    let said = Worker::start_command(
        {
            shell.arg(std::env::current_exe().unwrap());
            shell
        },
        &site,
        "write",
    );
    check_full_disk(&site, said.all());
}

/// A disk of 2 MiB, where the system lets an ordinary user mount one.
#[test]
fn a_full_disk_loses_nothing() {
    let mut site = Site::sqlite();
    let (kept, disk) = (site.folder.path().join("kept"), site.folder.path().join("disk"));
    std::fs::create_dir(&disk).unwrap();
    let unshare = ["--user", "--map-root-user", "--mount"];
    let probe = Command::new("unshare").args(unshare).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        // Said aloud; the test above covers the same code.
        println!("this system lets nobody mount a small disk");
        return;
    }
    // The disk is gone with the process, so what is on it is copied before.
    let line = format!(
        "set -e; mount -t tmpfs -o size=2m none '{disk}'; \"$@\"; cp -a '{disk}' '{kept}'",
        disk = disk.display(),
        kept = kept.display(),
    );
    let mut shell = Command::new("unshare");
    shell.args(unshare).args(["sh", "-c", &line, "sh"]).arg(std::env::current_exe().unwrap());
    site.address = format!("sqlite:{}", disk.join("feilun.db").display());
    let said = Worker::start_command(shell, &site, "write").all();
    site.url = feilun_store::StoreUrl::sqlite(kept.join("feilun.db"));
    check_full_disk(&site, said);
}

/// The child ended with errors that say what happened, and what it acknowledged is there.
#[track_caller]
fn check_full_disk(site: &Site, said: Vec<Said>) {
    let errors: Vec<&Said> = said.iter().filter(|said| matches!(said, Said::Error(_))).collect();
    assert_eq!(errors.len(), 8, "each writer ends with an error: {errors:?}");
    for error in errors {
        let Said::Error(text) = error else { continue };
        let is_clear = text.starts_with("error Full") || text.starts_with("error Unreachable");
        assert!(is_clear, "{text}");
    }
    block_on(async {
        let (store, _) = site.open().await;
        let mut num_turns = 0;
        for said in &said {
            match said {
                Said::Turn(id) => {
                    let found = store.turn(*id).await.unwrap().recorded;
                    assert_eq!(found, derived(*id, found.config));
                    num_turns += 1;
                }
                Said::Feedback(id, _) => {
                    assert_eq!(store.feedback_of(*id).await.unwrap().len(), 1);
                }
                _ => (),
            }
        }
        assert!(num_turns > 10, "{num_turns}");
    });
}

#[test]
fn a_database_that_another_process_locks_is_busy_and_then_not() {
    let site = Site::sqlite();
    block_on(async {
        let options = StoreOptions { patience: Duration::from_millis(300), ..site.options() };
        let store = Store::open(&site.url, options).await.unwrap();
        let config = store.record_config(&json!(1)).await.unwrap();
        let mut locker = Worker::start(&site, "lock");
        assert_eq!(locker.next(), Some(Said::Locked));
        let error = store.record_turn(turn(config)).await.unwrap_err();
        assert!(matches!(error, StoreError::Busy { .. }) && error.is_transient(), "{error}");
        store.config(config).await.unwrap();
        // Within its patience, a write waits for the lock.
        drop(locker);
        let new = turn(config);
        store.record_turn(new.clone()).await.unwrap();
        assert_eq!(store.turn(new.id).await.unwrap().recorded, new);
    });
}

/// Writes until it is told to stop. Errors must be such that trying again helps.
async fn keep_writing(
    store: Store,
    config: ConfigHash,
    stop: Arc<AtomicBool>,
) -> (Vec<TurnId>, usize) {
    let (mut acknowledged, mut num_errors) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let id = TurnId::new();
        match store.record_turn(derived(id, config)).await {
            Ok(()) => acknowledged.push(id),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                num_errors += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    (acknowledged, num_errors)
}

#[test]
fn a_postgres_that_restarts_under_load_loses_nothing() {
    let mut cluster = Cluster::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let url = cluster.url().parse().unwrap();
        let options = StoreOptions {
            patience: Duration::from_secs(10),
            ..StoreOptions::new(folder.path().join("blobs"))
        };
        let store = Store::open(&url, options.clone()).await.unwrap();
        let config = store.record_config(&json!(1)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..8)
            .map(|_| tokio::spawn(keep_writing(store.clone(), config, Arc::clone(&stop))))
            .collect();
        // In order, and by kill: after the second it recovers from its log.
        for signal in [Signal::INT, Signal::QUIT] {
            tokio::time::sleep(Duration::from_millis(400)).await;
            cluster.end(signal).unwrap();
            // Nobody waits for ever for a server that is not there.
            let hasty = StoreOptions { patience: Duration::from_millis(200), ..options.clone() };
            let refused = Store::open(&url, hasty).await.map(drop).unwrap_err();
            assert!(matches!(refused, StoreError::Unreachable { .. }), "{refused}");
            cluster.run().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        stop.store(true, Ordering::Relaxed);
        let (mut num_turns, mut num_errors) = (0, 0);
        for writer in writers {
            let (acknowledged, errors) = writer.await.unwrap();
            for id in &acknowledged {
                assert_eq!(store.turn(*id).await.unwrap().recorded, derived(*id, config));
            }
            num_turns += acknowledged.len();
            num_errors += errors;
        }
        println!("{num_turns} turns acknowledged, {num_errors} refused, two restarts");
        // The same handle, after both restarts.
        let new = turn(config);
        store.record_turn(new.clone()).await.unwrap();
        assert_eq!(store.turn(new.id).await.unwrap().recorded, new);
        assert!(num_turns > 50, "{num_turns}");
    });
}
