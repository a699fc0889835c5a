//! Texts to shards, shards to rows: every token is learned once, but the first of a document.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic")]

mod common;

use std::path::PathBuf;

use common::{BYTES, SMOLLM2};
use feilun_train::data::shard::{Shard, ShardWriter};
use feilun_train::data::{
    BadLines, DataError, PackedRow, Plan, PlanOptions, TextOptions, TextReport, TokenCounts,
    write_shard,
};
use proptest::prelude::*;

fn shards(documents: &[Vec<Vec<u32>>]) -> Vec<Shard> {
    let folder = tempfile::tempdir().unwrap();
    let write = |(i, documents): (usize, &Vec<Vec<u32>>)| {
        let path = folder.path().join(format!("{i}.tokens"));
        let mut writer = ShardWriter::create(&path, 70_000, blake3::hash(b"")).unwrap();
        documents.iter().for_each(|document| writer.add(document).unwrap());
        writer.finish().unwrap();
        Shard::open(&path).unwrap()
    };
    documents.iter().enumerate().map(write).collect()
}

/// Documents whose tokens are all different, so that each can be found again.
fn numbered(lens: &[Vec<usize>]) -> Vec<Vec<Vec<u32>>> {
    let mut next = 0..;
    let document = |len: usize| (0..len).map(|_| next.next().unwrap()).collect();
    let mut document = document;
    lens.iter().map(|shard| shard.iter().map(|&len| document(len)).collect()).collect()
}

fn epoch(plan: &Plan) -> Vec<PackedRow> {
    let mut rows: Vec<PackedRow> =
        (0..plan.num_steps(1)).flat_map(|step| plan.rows(step).unwrap()).collect();
    rows.truncate(plan.num_rows(1) as usize);
    rows
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_token_is_learned_once(
        lens in prop::collection::vec(prop::collection::vec(0..90_usize, 0..12), 1..4),
        seed: u64,
        row_tokens in 2..40_usize,
        document_tokens_max in 2..50_usize,
        held_out in prop::sample::select(&[0.0, 0.4][..]),
    ) {
        let documents = numbered(&lens);
        let options = PlanOptions {
            seed, document_tokens_max, held_out, tokens_per_step: 100,
            held_out_rows_max: usize::MAX, ..PlanOptions::new(row_tokens)
        };
        let plan = match Plan::of_shards(shards(&documents), options) {
            Ok(plan) => plan,
            Err(DataError::NothingToTrain { .. }) => return Ok(()),
            Err(error) => panic!("{error}"),
        };
        let ledger = plan.ledger();
        ledger.check().unwrap();
        let counts = ledger.tokens();
        let all: Vec<&Vec<u32>> = documents.iter().flatten().collect();
        let total: usize = all.iter().map(|document| document.len()).sum();
        prop_assert_eq!(counts.total(), total as u64);

        let rows = epoch(&plan);
        let mut trained = Vec::new();
        for row in rows.iter() {
            prop_assert!(row.tokens.len() <= row_tokens);
            for (origin, range) in row.sequences() {
                prop_assert!((2..=document_tokens_max).contains(&range.len()));
                // A stretch of its document, with the true token before each that is learned.
                let document = all[origin.example];
                let at = document.iter().position(|&t| t == row.tokens[range.start]).unwrap();
                prop_assert_eq!(&document[at..at + range.len()], &row.tokens[range.clone()]);
                trained.extend(range.filter(|&t| row.learn[t]).map(|t| row.tokens[t]));
            }
        }
        prop_assert_eq!(trained.len() as u64, counts.trained);
        let held_out: Vec<u32> = plan.held_out().iter()
            .flat_map(|row| row.tokens.iter().zip(&row.learn))
            .filter(|(_, learn)| **learn).map(|(&token, _)| token).collect();
        let mut learned: Vec<u32> = trained.into_iter().chain(held_out).collect();
        learned.sort();
        let mut expected: Vec<u32> =
            all.iter().flat_map(|document| document.iter().skip(1).copied()).collect();
        expected.sort();
        prop_assert_eq!(learned, expected);
        // Rows are full, but for the last and where two tokens would not fit.
        let short = rows.iter().filter(|row| row.tokens.len() + 1 < row_tokens).count();
        prop_assert!(short <= 1 || document_tokens_max < row_tokens, "{} short rows", short);
    }

    #[test]
    fn a_step_is_computed_without_those_before_it(
        lens in prop::collection::vec(prop::collection::vec(2..90_usize, 1..12), 1..4),
        seed: u64, step in 0..30_u64,
    ) {
        let documents = numbered(&lens);
        let options = PlanOptions { seed, tokens_per_step: 60, ..PlanOptions::new(20) };
        let undisturbed = Plan::of_shards(shards(&documents), options).unwrap();
        let all: Vec<_> = (0..=step).map(|step| undisturbed.rows(step).unwrap()).collect();
        let resumed = Plan::of_shards(shards(&documents), options).unwrap();
        prop_assert_eq!(&resumed.rows(step).unwrap(), all.last().unwrap());
        prop_assert_eq!(resumed.digest(), undisturbed.digest());
    }
}

#[test]
fn equal_documents_are_on_one_side() {
    let documents = vec![(0..400).map(|i| vec![i % 40 + 1; 5]).collect::<Vec<_>>()];
    let options =
        PlanOptions { held_out: 0.5, held_out_rows_max: usize::MAX, ..PlanOptions::new(64) };
    let plan = Plan::of_shards(shards(&documents), options).unwrap();
    let kinds = |rows: &[PackedRow]| -> std::collections::BTreeSet<u32> {
        rows.iter().flat_map(|row| row.tokens.iter().copied()).collect()
    };
    let (trained, held_out) = (kinds(&epoch(&plan)), kinds(plan.held_out()));
    assert!(trained.is_disjoint(&held_out));
    assert_eq!(trained.len() + held_out.len(), 40);
    let TokenCounts { held_out: tokens, .. } = plan.ledger().tokens();
    assert_eq!(tokens as usize, held_out.len() * 50);
}

#[test]
fn shards_without_a_pair_of_tokens_are_refused() {
    for documents in [vec![], vec![vec![]], vec![vec![vec![], vec![7]], vec![vec![8]]]] {
        let error = Plan::of_shards(shards(&documents), PlanOptions::new(8)).unwrap_err();
        assert!(matches!(error, DataError::NothingToTrain { .. }), "{error}");
    }
}

/// Writes files and makes a shard of them.
fn texts(
    files: &[(&str, &[u8])],
    options: TextOptions,
) -> Result<(TextReport, Vec<String>), String> {
    let folder = tempfile::tempdir().unwrap();
    let write = |(name, contents): &(&str, &[u8])| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let paths: Vec<PathBuf> = files.iter().map(write).collect();
    let out = folder.path().join("out.tokens");
    let mut done = 0;
    let written = write_shard(&paths, &BYTES, &out, options, &mut |bytes| done += bytes);
    let name = folder.path().display().to_string();
    let report = written.map_err(|error| {
        assert!(!out.exists(), "a failure leaves no shard");
        error.to_string().replace(&name, ".")
    })?;
    let shard = Shard::open(&out).unwrap();
    shard.verify().unwrap();
    shard.check_tokenizer(&BYTES).unwrap();
    assert_eq!(shard.num_tokens() as u64, report.num_tokens);
    let text = |i| BYTES.decode(&shard.document(i).unwrap(), false);
    Ok((report, (0..shard.num_documents()).map(text).collect()))
}

const SKIP: TextOptions = TextOptions { bad_lines: BadLines::Skip, document_bytes_max: 1 << 20 };

#[test]
fn files_and_lines_become_documents() {
    let (report, found) = texts(
        &[
            ("a.txt", "\u{feff}One\nfile <eos>.\n".as_bytes()),
            ("b.jsonl", b"{\"text\":\"x\"}\n\n{\"text\":\"\",\"id\":2}\n{\"text\":\"y\"}"),
        ],
        TextOptions::default(),
    )
    .unwrap();
    assert_eq!(found, ["<bos>One\nfile <eos>.\n<eos>", "<bos>x<eos>", "<bos>y<eos>"]);
    assert_eq!((report.num_documents, report.num_bytes), (3, 18));
    // What the text spells is no control token: of 16 bytes each has one.
    assert_eq!(report.num_tokens, 18 + 6);
}

#[test]
fn long_texts_become_several_documents() {
    let options = TextOptions { document_bytes_max: 8, ..TextOptions::default() };
    let (_, found) = texts(&[("a.txt", "line 1\nline 2\näöüäöü".as_bytes())], options).unwrap();
    assert_eq!(found, ["<bos>line 1\n", "line 2\n", "äöüä", "öü<eos>"]);
}

#[test]
fn bad_texts_are_refused_or_skipped() {
    let files: &[(&str, &[u8])] = &[
        ("a.txt", b"first\nab\xffcd"),
        ("b.jsonl", b"{\"text\":\"x\"}\n{\"text\":1}\n"),
        ("c.txt", b""),
    ];
    let error = texts(files, TextOptions::default()).unwrap_err();
    assert_eq!(
        error,
        "`./a.txt` line 2: byte 2 is not UTF-8; convert the file to UTF-8; correct the line, or \
         choose to skip bad lines"
    );
    let error = texts(&files[1..], TextOptions::default()).unwrap_err();
    assert!(error.starts_with("`./b.jsonl` line 2: text is a number, expected a string"));
    let error = texts(&files[2..], TextOptions::default()).unwrap_err();
    assert!(error.starts_with("`./c.txt` line 1: nothing to learn: the file is empty"), "{error}");
    let (report, found) = texts(files, SKIP).unwrap();
    assert_eq!(found, ["<bos>x<eos>"]);
    assert_eq!((report.num_skipped, report.skipped.len()), (3, 3));
    let error = texts(&files[2..], SKIP).unwrap_err();
    assert!(error.starts_with("no examples in `./c.txt`"), "{error}");
}

#[test]
fn a_shard_of_another_tokenizer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("a.txt");
    std::fs::write(&text, "Hello").unwrap();
    let out = folder.path().join("a.tokens");
    write_shard(&[text], &SMOLLM2.0, &out, TextOptions::default(), &mut |_| ()).unwrap();
    let shard = Shard::open(&out).unwrap();
    shard.check_tokenizer(&SMOLLM2.0).unwrap();
    assert_eq!(SMOLLM2.0.decode(&shard.document(0).unwrap(), true), "Hello");
    let error = shard.check_tokenizer(&BYTES).unwrap_err().to_string();
    assert!(error.contains("was made with another tokenizer"), "{error}");
}
