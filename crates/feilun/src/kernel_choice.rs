//! The measured choice of kernels, kept in the data directory.
//!
//! It takes half a second to find and holds for one processor and one version of this program,
//! which the file names. A file that is damaged, or that names others, is measured anew. Whatever
//! it says changes the speed of an answer, never the answer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use feilun_kernels::{BlockType, Isa, KernelTable, RowClass};
use serde::{Deserialize, Serialize};

/// A whole file has about 3 KiB; more is not ours.
const MAX_BYTES: u64 = 64 << 10;

/// What a choice holds for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// The processor's name.
    processor: String,
    /// The paths that it can run, by name.
    paths: Vec<String>,
    /// The fastest of them that passed its self-test.
    best: String,
    /// Version of this program.
    program: String,
}

impl Key {
    pub(crate) fn new(processor: String, best: Isa) -> Key {
        let name = |isa: Isa| isa.name().to_owned();
        Key {
            processor,
            paths: Isa::available().into_iter().map(name).collect(),
            best: name(best),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    key: Key,
    /// By storage type and rows: the path.
    choices: BTreeMap<String, BTreeMap<String, String>>,
}

/// The kept choice for `key`, or else what `measure` finds, which is kept for the next start.
/// A directory that cannot be written costs that start its half second, and nothing else.
pub(crate) fn load_or_measure(
    path: &Path,
    key: Key,
    best: Isa,
    measure: impl FnOnce() -> KernelTable,
) -> KernelTable {
    if let Some(table) = load(path, &key, best) {
        return table;
    }
    let table = measure();
    let _ = store(path, key, &table);
    table
}

/// `None` where there is no file for this key, or not a whole one.
fn load(path: &Path, key: &Key, best: Isa) -> Option<KernelTable> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let contents: Contents = serde_json::from_str(&text).ok()?;
    if contents.key != *key {
        return None;
    }
    let mut table = KernelTable::from(best);
    let mut num_choices = 0;
    for (name, choices) in &contents.choices {
        let block_type = BlockType::ALL.into_iter().find(|block_type| block_type.name() == name)?;
        for (rows, path) in choices {
            if !table.choose(block_type, RowClass::from_name(rows)?, Isa::from_name(path)?) {
                return None;
            }
            num_choices += 1;
        }
    }
    (num_choices == table.choices().count()).then_some(table)
}

/// Under another name first, so that no reader ever finds half a file.
fn store(path: &Path, key: Key, table: &KernelTable) -> std::io::Result<()> {
    let mut choices: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (block_type, rows, path) in table.choices() {
        let of_type = choices.entry(block_type.name().to_owned()).or_default();
        of_type.insert(rows.name().to_owned(), path.name().to_owned());
    }
    let text = serde_json::to_string_pretty(&Contents { key, choices })?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, text).and_then(|()| fs::rename(&partial, path)).inspect_err(|_| {
        // What is left of a full disk's half file. If it cannot be removed, it does no harm.
        let _ = fs::remove_file(&partial);
    })
}

/// A choice in few words: the path of most, and what differs.
pub(crate) fn describe(table: &KernelTable) -> String {
    let best = table.isa();
    let mut others: Vec<((BlockType, Isa), Vec<&str>)> = Vec::new();
    for (block_type, rows, path) in table.choices().filter(|&(_, _, path)| path != best) {
        match others.last_mut() {
            Some((last, classes)) if *last == (block_type, path) => classes.push(rows.name()),
            _ => others.push(((block_type, path), vec![rows.name()])),
        }
    }
    if others.is_empty() {
        return format!("{} for every type and number of rows", best.name());
    }
    let others: Vec<String> = others
        .into_iter()
        .map(|((block_type, path), rows)| {
            format!("{} for {block_type} x {} rows", path.name(), rows.join(", "))
        })
        .collect();
    format!("{}, but {}", best.name(), others.join("; "))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn key() -> Key {
        Key::new("a processor".to_owned(), Isa::Avx2)
    }

    fn mixed() -> KernelTable {
        let mut table = KernelTable::from(Isa::Avx2);
        assert!(table.choose(BlockType::Q6K, RowClass::One, Isa::Portable));
        assert!(table.choose(BlockType::Q6K, RowClass::UpTo4, Isa::Portable));
        assert!(table.choose(BlockType::Q8_0, RowClass::Many, Isa::Portable));
        table
    }

    /// The table, and whether it was measured.
    fn start(path: &Path, key: Key) -> (KernelTable, bool) {
        let measured = Cell::new(false);
        let table = load_or_measure(path, key, Isa::Avx2, || {
            measured.set(true);
            mixed()
        });
        (table, measured.get())
    }

    #[test]
    fn a_choice_is_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("kernels.json");
        assert_eq!(start(&path, key()), (mixed(), true));
        assert_eq!(start(&path, key()), (mixed(), false));
        let left: Vec<_> = fs::read_dir(folder.path().join("new")).unwrap().collect();
        assert_eq!(left.len(), 1, "no partial file is left: {left:?}");
    }

    #[test]
    fn another_processor_path_or_version_is_measured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        let mut keys = [key(), key(), key(), key()];
        keys[0].processor.push('!');
        keys[1].paths.pop();
        keys[2].best = "avx512".to_owned();
        keys[3].program = "0.0.1".to_owned();
        for other in keys {
            assert!(start(&path, key()).1);
            assert!(!start(&path, key()).1);
            assert!(start(&path, other.clone()).1, "{other:?}");
            assert!(!start(&path, other).1);
        }
    }

    #[test]
    fn a_damaged_file_is_measured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        start(&path, key());
        let whole = fs::read_to_string(&path).unwrap();
        let damaged = [
            String::new(),
            whole[..whole.len() / 2].to_owned(),
            whole.replace("Q6_K", "Q9_K"),
            whole.replace("Q6_K", "F16"),
            whole.replace("portable", "avx512"),
            whole.replace("portable", "mmx"),
            whole.replace("3 to 4", "3 to 5"),
            whole.replace("\"1\": \"portable\",", ""),
            whole.replace("\"program\"", "\"programme\""),
            whole.clone() + "x",
            " ".repeat(1 << 17) + &whole,
        ];
        for text in damaged {
            assert_ne!(text, whole);
            fs::write(&path, &text).unwrap();
            assert_eq!(start(&path, key()), (mixed(), true), "{}", &text[..text.len().min(2000)]);
            assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        }
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(start(&path, key()).1);
    }

    #[test]
    fn without_a_place_to_keep_it_the_choice_is_still_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a file");
        fs::write(&file, "").unwrap();
        assert_eq!(start(&file.join("kernels.json"), key()), (mixed(), true));
    }

    #[test]
    fn a_description_names_what_differs() {
        assert_eq!(describe(&Isa::Avx2.into()), "avx2 for every type and number of rows");
        assert_eq!(
            describe(&mixed()),
            "avx2, but portable for Q8_0 x 17 or more rows; portable for Q6_K x 1, 3 to 4 rows"
        );
    }
}
