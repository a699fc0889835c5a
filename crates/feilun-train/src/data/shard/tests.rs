//! Shards come back as they were written, and hostile ones do not come at all.

use proptest::prelude::*;

use super::*;

fn write(path: &std::path::Path, vocab_size: u32, documents: &[Vec<u32>]) {
    let mut writer = ShardWriter::create(path, vocab_size, blake3::hash(b"t")).unwrap();
    documents.iter().for_each(|document| writer.add(document).unwrap());
    writer.finish().unwrap();
}

/// A valid shard's bytes after a change, opened.
fn opened(change: impl FnOnce(&mut Vec<u8>)) -> Result<Shard, ShardError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tokens");
    write(&path, 100, &[vec![1, 2, 3], vec![], vec![99]]);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    Shard::open(&path)
}

#[track_caller]
fn refused(expected: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let error = opened(change).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

fn set(offset: usize, number: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[offset..offset + 8].copy_from_slice(&number.to_le_bytes())
}

#[test]
fn hostile_files_are_refused() {
    opened(|_| ()).unwrap();
    refused("the magic is GGUF", |bytes| bytes[..4].copy_from_slice(b"GGUF"));
    refused("the version is 2, expected 1", |bytes| bytes[8] = 2);
    refused("the width of tokens is 4, expected 2 for a vocabulary of 100", |bytes| bytes[12] = 4);
    refused("the width of tokens is 2, expected 4", |bytes| bytes[35] = 1);
    for number in [0, 2, 4, 1 << 59, 1 << 60, u64::MAX / 16, u64::MAX] {
        refused("the length of the file is 184", set(16, number));
    }
    for number in [0, 8, 9, 1 << 62, 1 << 63, u64::MAX / 2, u64::MAX - 3, u64::MAX] {
        refused("the length of the file is 184", set(24, number));
    }
    let index = 184 - 48;
    refused("the end of a document is 5, expected 0 to 4", set(index, 5));
    refused("the end of a document is 2, expected 3 to 4", set(index + 16, 2));
    refused("the end of a document is 18446744073709551615", set(index + 16, u64::MAX));
    refused("the end of the last document is 3, expected 4", set(index + 32, 3));
    for len in [0, 1, 127] {
        refused("expected at least 128 bytes", |bytes| bytes.truncate(len));
    }
    for len in [128, 135, 183] {
        refused("the length of the file", |bytes| bytes.truncate(len));
    }
    refused("the length of the file is 185", |bytes| bytes.push(0));
}

#[test]
fn a_token_outside_the_vocabulary_is_named() {
    let shard = opened(|bytes| bytes[HEADER_BYTES + 6] = 100).unwrap();
    assert_eq!(shard.document(0).unwrap(), [1, 2, 3]);
    let error = shard.document(2).unwrap_err().to_string();
    assert!(error.contains("document 2 has the token 100, the vocabulary has 100"), "{error}");
    assert!(shard.verify().unwrap_err().to_string().contains("digest"), "and verify() finds it");
}

#[test]
fn writing_refuses_what_reading_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tokens");
    let mut writer = ShardWriter::create(&path, 100, blake3::hash(b"t")).unwrap();
    writer.add(&[100]).unwrap_err();
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn documents_come_back(
        wide: bool,
        documents in prop::collection::vec(prop::collection::vec(0..60_000_u32, 0..40), 0..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tokens");
        write(&path, if wide { 70_000 } else { 65_536 }, &documents);
        let shard = Shard::open(&path).unwrap();
        shard.verify().unwrap();
        prop_assert_eq!(shard.num_documents(), documents.len());
        prop_assert_eq!(shard.num_tokens(), documents.iter().map(Vec::len).sum::<usize>());
        for (i, document) in documents.iter().enumerate() {
            prop_assert_eq!(&shard.document(i).unwrap(), document);
            let mut part = Vec::new();
            shard.read(i, document.len() / 3..document.len(), &mut part).unwrap();
            prop_assert_eq!(&part[..], &document[document.len() / 3..]);
            let equal = documents.iter().position(|other| other == document).unwrap();
            prop_assert_eq!(shard.document_hash(i), shard.document_hash(equal));
        }
    }
}
