//! Tokenizers from the metadata of GGUF files.
//!
//! Three kinds, by `tokenizer.ggml.model`: `gpt2` (byte-level BPE; how it cuts text into words is
//! named by `tokenizer.ggml.pre`), `llama` (SentencePiece BPE by scores) and `t5` (Unigram).

use super::added::{AddedToken, AddedTokens};
use super::bpe::{Alphabet, Bpe};
use super::bytelevel::bytes_of;
use super::charsmap::Charsmap;
use super::encoder::{Encoder, Model};
use super::error::{TokenizerError, short};
use super::merge::Join;
use super::normalize::Normalize;
use super::pattern::{self, Pattern};
use super::split::{Behaviour, Split};
use super::spm::{Spm, is_spaces};
use super::unigram::Unigram;
use super::vocab::{TokenIndex, TokenKind, Vocab, byte_token, check_distinct, with_spaces};
use super::{Parts, SpecialIds, Tokenizer};

/// The fields `tokenizer.ggml.*` of a GGUF file, as they are in the file. Nothing needs to be
/// checked beforehand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab<'a> {
    /// `gpt2`, `llama` or `t5`.
    pub model: &'a str,
    /// How `gpt2` cuts text into words; absent in old files, which means GPT-2's way.
    pub pre: Option<&'a str>,
    /// The tokens, by id.
    pub tokens: Vec<&'a str>,
    /// One per token: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i32>>,
    /// One per token; `llama` and `t5` need them.
    pub scores: Option<Vec<f32>>,
    /// `left right`, best first; `gpt2` needs them.
    pub merges: Option<Vec<&'a str>>,
    /// Whether texts begin with BOS; the default depends on the kind.
    pub add_bos: Option<bool>,
    /// Whether texts end with EOS; the default depends on the kind.
    pub add_eos: Option<bool>,
    /// Whether SentencePiece puts a space before a text (default: yes).
    pub add_space_prefix: Option<bool>,
    /// Whether `t5` makes one space of several and drops those at the ends (default: no).
    pub remove_extra_whitespaces: Option<bool>,
    /// SentencePiece's table of character replacements, for `t5`.
    pub precompiled_charsmap: Option<&'a [u8]>,
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of a turn, where it is not `eos`.
    pub eot: Option<u32>,
    /// End of a message, where it is not `eos`.
    pub eom: Option<u32>,
    /// Stands for text without a token.
    pub unknown: Option<u32>,
    /// Fills up a batch.
    pub padding: Option<u32>,
}

/// How a kind of byte-level BPE cuts text into words.
pub(super) struct WordRule {
    pub(super) each_digit: bool,
    pub(super) pattern: &'static str,
    pub(super) nfc: bool,
    pub(super) whole_words: bool,
    pub(super) adds_bos: bool,
}

/// The ways to cut text that are known by name in GGUF files.
pub(super) fn word_rule(pre: &str) -> Result<WordRule, TokenizerError> {
    let gpt2 = WordRule {
        each_digit: false,
        pattern: pattern::GPT2,
        nfc: false,
        whole_words: false,
        adds_bos: false,
    };
    Ok(match pre {
        "default" | "gpt-2" | "gpt2" | "phi-2" => gpt2,
        "smollm" | "starcoder" | "refact" | "command-r" => WordRule { each_digit: true, ..gpt2 },
        "llama-bpe" | "llama3" | "llama-v3" => {
            WordRule { pattern: pattern::LLAMA3, whole_words: true, adds_bos: true, ..gpt2 }
        }
        "qwen2" | "deepseek-r1-qwen" => WordRule { pattern: pattern::QWEN2, nfc: true, ..gpt2 },
        "tekken" => {
            WordRule { pattern: pattern::TEKKEN, whole_words: true, adds_bos: true, ..gpt2 }
        }
        _ => {
            return Err(TokenizerError::Unsupported {
                what: "tokenizer.ggml.pre",
                found: short(pre),
                supported: "default, gpt-2, smollm, llama-bpe, qwen2, tekken and their aliases",
            });
        }
    })
}

impl Tokenizer {
    /// Builds a tokenizer from the metadata of a GGUF file.
    pub fn from_gguf(file: GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
        check_lengths(&file)?;
        check_distinct(&file.tokens)?;
        match file.model {
            "gpt2" => byte_level(&file),
            "llama" => sentence_piece(&file),
            "t5" => unigram(&file),
            other => Err(TokenizerError::Unsupported {
                what: "tokenizer.ggml.model",
                found: short(other),
                supported: "gpt2, llama, t5",
            }),
        }
    }
}

pub(super) fn check_lengths(file: &GgufVocab<'_>) -> Result<(), TokenizerError> {
    let expected = file.tokens.len();
    if expected == 0 {
        return Err(TokenizerError::Missing { what: "tokenizer.ggml.tokens" });
    }
    let check = |what, found: Option<usize>| match found {
        Some(found) if found != expected => {
            Err(TokenizerError::WrongLength { what, found, expected })
        }
        _ => Ok(()),
    };
    check("tokenizer.ggml.token_type", file.token_types.as_ref().map(Vec::len))?;
    check("tokenizer.ggml.scores", file.scores.as_ref().map(Vec::len))?;
    for (what, id) in [
        ("tokenizer.ggml.bos_token_id", file.bos),
        ("tokenizer.ggml.eos_token_id", file.eos),
        ("tokenizer.ggml.eot_token_id", file.eot),
        ("tokenizer.ggml.eom_token_id", file.eom),
        ("tokenizer.ggml.unknown_token_id", file.unknown),
        ("tokenizer.ggml.padding_token_id", file.padding),
    ] {
        if let Some(id) = id.filter(|&id| id as usize >= expected) {
            return Err(TokenizerError::IdOutOfRange { what, id: id.into(), vocab_size: expected });
        }
    }
    Ok(())
}

/// The kind of each token. A file without types has normal tokens only, except for those that it
/// names as special.
pub(super) fn kinds(file: &GgufVocab<'_>) -> Result<Vec<TokenKind>, TokenizerError> {
    let mut kinds = match &file.token_types {
        None => vec![TokenKind::Normal; file.tokens.len()],
        Some(types) => types
            .iter()
            .enumerate()
            .map(|(id, &number)| match number {
                1 => Ok(TokenKind::Normal),
                2 => Ok(TokenKind::Unknown),
                3 => Ok(TokenKind::Control),
                4 => Ok(TokenKind::UserDefined),
                5 => Ok(TokenKind::Unused),
                6 => Ok(TokenKind::Byte),
                _ => Err(bad_token(file, id, "its type is not one of 1 to 6")),
            })
            .collect::<Result<_, _>>()?,
    };
    for id in [file.bos, file.eos, file.eot, file.eom].into_iter().flatten() {
        kinds[id as usize] = TokenKind::Control;
    }
    Ok(kinds)
}

fn bad_token(file: &GgufVocab<'_>, id: usize, reason: &'static str) -> TokenizerError {
    TokenizerError::BadToken { id, text: short(file.tokens[id]), reason }
}

/// The tokens of one kind, to be found in a text as a whole.
fn added(file: &GgufVocab<'_>, vocab: &Vocab, wanted: TokenKind) -> Vec<AddedToken> {
    vocab
        .ids()
        .filter(|&(_, kind)| kind == wanted)
        .map(|(id, _)| {
            // SentencePiece looks for them in its own text, which has spaces as ours has.
            let text = match wanted {
                TokenKind::UserDefined => String::from_utf8_lossy(vocab.bytes(id)).into_owned(),
                _ => file.tokens[id as usize].to_string(),
            };
            AddedToken { id, text, ..AddedToken::default() }
        })
        .collect()
}

fn parts(
    file: &GgufVocab<'_>,
    encoder: Encoder,
    adds_bos: bool,
    adds_eos: bool,
    starts_with_space: bool,
) -> Parts {
    let mut controls = added(file, &encoder.vocab, TokenKind::Control);
    controls.extend(added(file, &encoder.vocab, TokenKind::Unknown));
    Parts {
        controls,
        encoder,
        ids: SpecialIds {
            bos: file.bos,
            eos: file.eos,
            unknown: file.unknown,
            padding: file.padding,
        },
        more_end_of_turn: [file.eot, file.eom].into_iter().flatten().collect(),
        adds_bos: file.add_bos.unwrap_or(adds_bos),
        adds_eos: file.add_eos.unwrap_or(adds_eos),
        starts_with_space,
    }
}

fn is_piece(_: u32, kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused)
}

fn byte_level(file: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    let rule = word_rule(file.pre.unwrap_or("default"))?;
    let merges =
        file.merges.as_ref().ok_or(TokenizerError::Missing { what: "tokenizer.ggml.merges" })?;
    let mut vocab = Vocab::with_capacity(file.tokens.len())?;
    for (&text, kind) in file.tokens.iter().zip(kinds(file)?) {
        match kind {
            TokenKind::Normal | TokenKind::Unused => vocab.push(bytes_of(text), kind)?,
            _ => vocab.push(text.bytes(), kind)?,
        }
    }
    let pieces = TokenIndex::of(&vocab, is_piece);
    let alphabet = Alphabet::Bytes(single_bytes(&vocab, &pieces));
    let mut model = Bpe::new(alphabet, merges.len(), rule.whole_words);
    let mut buffer = Vec::new();
    for (index, &text) in merges.iter().enumerate() {
        let bad = |reason| TokenizerError::BadMerge { index, text: short(text), reason };
        let (left, right) =
            text.split_once(' ').ok_or(bad("expected two tokens with a space between"))?;
        buffer.clear();
        buffer.extend(bytes_of(left));
        let middle = buffer.len();
        buffer.extend(bytes_of(right));
        let token = |bytes| pieces.get(&vocab, bytes).ok_or(bad("not made of normal tokens"));
        let (left, right) = (token(&buffer[..middle])?, token(&buffer[middle..])?);
        // Fits: merges are distinct pairs, and more than u32::MAX would need as many bytes.
        let join = Join { rank: index as u32, id: token(&buffer)? };
        if let Some(first) = model.add_merge(left, right, join) {
            let (first, text) = (first as usize, short(text));
            return Err(TokenizerError::Duplicate { what: "merge", text, first, second: index });
        }
    }
    let mut split = Vec::new();
    if rule.each_digit {
        split.push(Split::Digits { each: true });
    }
    let pattern = Pattern::new(rule.pattern)?;
    split.push(Split::Pattern { pattern, behaviour: Behaviour::Isolated, invert: false });
    let encoder = Encoder {
        user_defined: AddedTokens::new(added(file, &vocab, TokenKind::UserDefined))?,
        user_defined_normalized: None,
        normalize: if rule.nfc { vec![Normalize::Nfc] } else { Vec::new() },
        split,
        underscores_are_spaces: false,
        model: Model::Bpe(model),
        vocab,
        pieces,
    };
    Tokenizer::new(parts(file, encoder, rule.adds_bos, false, false))
}

/// The tokens of single bytes.
pub(super) fn single_bytes(vocab: &Vocab, pieces: &TokenIndex) -> Box<[Option<u32>; 256]> {
    let mut tokens = Box::new([None; 256]);
    for byte in 0..=255 {
        tokens[usize::from(byte)] = pieces.get(vocab, &[byte]);
    }
    tokens
}

/// What the two SentencePiece kinds have in common: the vocabulary with its byte tokens, and the
/// scores.
struct ScoredVocab {
    vocab: Vocab,
    scores: Vec<f32>,
    bytes: Option<Box<[Option<u32>; 256]>>,
    unknown: Option<u32>,
}

fn scored_vocab(file: &GgufVocab<'_>) -> Result<ScoredVocab, TokenizerError> {
    let scores =
        file.scores.clone().ok_or(TokenizerError::Missing { what: "tokenizer.ggml.scores" })?;
    if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
        return Err(bad_token(file, id, "its score is not a finite number"));
    }
    let mut vocab = Vocab::with_capacity(file.tokens.len())?;
    let mut bytes = Box::new([None; 256]);
    let mut unknown = file.unknown;
    for (id, (&text, kind)) in file.tokens.iter().zip(kinds(file)?).enumerate() {
        match kind {
            TokenKind::Byte => {
                let byte = byte_token(text)
                    .ok_or_else(|| bad_token(file, id, "a byte token is written <0xNN>"))?;
                if let Some(first) = bytes[usize::from(byte)].replace(id as u32) {
                    let (first, text) = (first as usize, short(text));
                    let what = "byte token";
                    return Err(TokenizerError::Duplicate { what, text, first, second: id });
                }
                vocab.push([byte], kind)?;
            }
            TokenKind::Control => vocab.push(text.bytes(), kind)?,
            TokenKind::Unknown => {
                unknown = unknown.or(Some(id as u32));
                vocab.push(text.bytes(), kind)?;
            }
            _ => vocab.push(with_spaces(text), kind)?,
        }
    }
    let any_byte = bytes.iter().any(Option::is_some);
    Ok(ScoredVocab { vocab, scores, bytes: any_byte.then_some(bytes), unknown })
}

/// Pieces for SentencePiece. Of two with equal bytes (`▁▁` and two spaces) the user-defined wins.
fn scored_pieces(vocab: &Vocab) -> TokenIndex {
    let mut pieces = TokenIndex::new();
    for wanted in [TokenKind::UserDefined, TokenKind::Normal, TokenKind::Unused] {
        for (id, _) in
            vocab.ids().filter(|&(id, kind)| kind == wanted && !vocab.bytes(id).is_empty())
        {
            pieces.insert(vocab, id);
        }
    }
    pieces
}

fn sentence_piece(file: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    let ScoredVocab { vocab, scores, bytes, unknown } = scored_vocab(file)?;
    let space_before = file.add_space_prefix.unwrap_or(true);
    let mut normalize = vec![Normalize::Replace { from: "▁".into(), to: " ".into() }];
    if space_before {
        normalize.push(Normalize::Prepend(" ".into()));
    }
    let mut user_defined = added(file, &vocab, TokenKind::UserDefined);
    user_defined.retain(|token| !is_spaces(token.text.as_bytes()));
    let encoder = Encoder {
        pieces: scored_pieces(&vocab),
        user_defined: None,
        normalize,
        user_defined_normalized: AddedTokens::new(user_defined)?,
        split: Vec::new(),
        underscores_are_spaces: false,
        model: Model::Spm(Spm::new(&vocab, &scores, bytes, unknown)),
        vocab,
    };
    let parts = parts(file, encoder, true, false, space_before);
    Tokenizer::new(Parts { ids: SpecialIds { unknown, ..parts.ids }, ..parts })
}

fn unigram(file: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    let ScoredVocab { vocab, scores, bytes, unknown } = scored_vocab(file)?;
    let space_before = file.add_space_prefix.unwrap_or(true);
    let mut normalize = Vec::new();
    if let Some(table) = file.precompiled_charsmap {
        normalize.push(Normalize::Charsmap(Box::new(Charsmap::new(table)?)));
    }
    if file.remove_extra_whitespaces == Some(true) {
        normalize.push(Normalize::Strip { left: true, right: true });
        normalize.push(Normalize::ReplacePattern { from: Pattern::new(" {2,}")?, to: " ".into() });
    }
    normalize.push(Normalize::Replace { from: "▁".into(), to: " ".into() });
    if space_before {
        normalize.push(Normalize::Prepend(" ".into()));
    }
    let scores = scores.into_iter().map(f64::from).collect();
    let encoder = Encoder {
        pieces: scored_pieces(&vocab),
        user_defined: None,
        normalize,
        user_defined_normalized: AddedTokens::new(added(file, &vocab, TokenKind::UserDefined))?,
        split: Vec::new(),
        underscores_are_spaces: false,
        model: Model::Unigram(Unigram::new(&vocab, scores, unknown, bytes)),
        vocab,
    };
    let parts = parts(file, encoder, false, true, space_before);
    Tokenizer::new(Parts { ids: SpecialIds { unknown, ..parts.ids }, ..parts })
}
