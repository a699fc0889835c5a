//! Values that somebody chose to do harm, or that nobody thought of.

use std::collections::BTreeMap;

use feilun_store::feedback::FeedbackValue;
use feilun_store::limits::{JSON_BYTES_MAX, JSON_DEPTH_MAX, NAME_BYTES_MAX, TAGS_MAX};
use feilun_store::turns::{NewTurn, TurnFilter};
use feilun_store::{Page, StoreError};
use serde_json::{Value as Json, json};

use crate::captured::feedback;
use crate::site::{Site, on_both, turn};

on_both! {
    texts_of_every_kind_come_back;
    what_is_too_large_is_refused;
    names_are_values_and_not_statements;
}

const TEXTS: [&str; 9] = [
    "",
    "\0",
    "a\0b\u{1}\u{7f}\u{85}",
    "'; DROP TABLE turns; --",
    "$1 ?1 :a @b {bytes} %s",
    "\u{feff}\u{202e}\u{fffd}\u{10ffff}\u{fffe}",
    "\\u0000 \\ \" \r\n\t",
    "飞轮 👩‍👩‍👧‍👦 e\u{301}",
    "NaN Infinity null true 1e999",
];

async fn texts_of_every_kind_come_back(site: Site) {
    let (store, config) = site.open().await;
    for text in TEXTS {
        let mut new = turn(config);
        new.request = json!([{"role": "user", "content": text, text: [text]}]);
        new.answer = json!(text);
        new.sampling = json!({ "stop": [text], "numbers": [1e308, -1e-308, u64::MAX, i64::MIN] });
        new.error = Some(text.to_owned());
        store.record_turn(new.clone()).await.unwrap();
        assert_eq!(store.turn(new.id).await.unwrap().recorded, new, "{text:?}");
        let comment = FeedbackValue::Comment(text.to_owned());
        store.add_feedback(feedback(new.id, comment.clone(), config)).await.unwrap();
        assert_eq!(store.feedback_of(new.id).await.unwrap()[0].recorded.value, comment);
    }
    let mut new = turn(config);
    new.answer_tokens = vec![0; 5];
    let bits = [0x7fc0_0001, 0xff80_0000, 0x8000_0000, 0x0000_0001, 0x7f7f_ffff];
    new.answer_logprobs = bits.map(f32::from_bits).to_vec();
    let id = new.id;
    store.record_turn(new).await.unwrap();
    let found = store.turn(id).await.unwrap().recorded.answer_logprobs;
    assert_eq!(found.iter().map(|number| number.to_bits()).collect::<Vec<_>>(), bits);
}

async fn what_is_too_large_is_refused(site: Site) {
    let (store, config) = site.open().await;
    let deep = |levels| (1..levels).fold(Json::Null, |inner, _| Json::Array(vec![inner]));
    // At the limit it is taken, and read back.
    for request in [deep(JSON_DEPTH_MAX), json!("x".repeat(JSON_BYTES_MAX - 2))] {
        let new = NewTurn { request, ..turn(config) };
        store.record_turn(new.clone()).await.unwrap();
        assert!(store.turn(new.id).await.unwrap().recorded == new);
    }
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let refused = [
        NewTurn { request: deep(JSON_DEPTH_MAX + 1), ..turn(config) },
        NewTurn { request: json!("x".repeat(JSON_BYTES_MAX)), ..turn(config) },
        NewTurn { answer: json!("\0".repeat(JSON_BYTES_MAX / 6 + 1)), ..turn(config) },
        NewTurn { prompt_tokens: vec![0; (1 << 22) + 1], ..turn(config) },
        NewTurn { answer_logprobs: vec![0.0; 3], ..turn(config) },
        NewTurn { app: Some(long.clone()), ..turn(config) },
        NewTurn { end_user: Some("a\0b".to_owned()), ..turn(config) },
        NewTurn { alias: Some(String::new()), ..turn(config) },
        NewTurn { finish_reason: long.clone(), ..turn(config) },
    ];
    for (index, new) in refused.into_iter().enumerate() {
        let id = new.id;
        let error = store.record_turn(new).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{index}: {error}");
        assert!(error.to_string().len() < 400, "an error repeats what was too large");
        assert!(store.turn(id).await.is_err());
    }
    let new = turn(config);
    let id = new.id;
    store.record_turn(new).await.unwrap();
    let mut many = feedback(id, FeedbackValue::Rating(true), config);
    many.tags = (0..=TAGS_MAX).map(|tag| (tag.to_string(), "x".to_owned())).collect();
    let mut odd = feedback(id, FeedbackValue::Rating(true), config);
    odd.tags = BTreeMap::from([("a\0".to_owned(), "x".to_owned())]);
    for feedback in [many, odd] {
        let error = store.add_feedback(feedback).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
}

async fn names_are_values_and_not_statements(site: Site) {
    let (store, config) = site.open().await;
    let name = "x' OR 1 = 1; DROP TABLE turns; --";
    let mine = NewTurn {
        app: Some(name.to_owned()),
        alias: Some(name.to_owned()),
        end_user: Some(name.to_owned()),
        ..turn(config)
    };
    store.record_turn(mine.clone()).await.unwrap();
    store.record_turn(turn(config)).await.unwrap();
    let filter = TurnFilter { app: Some(name.to_owned()), ..Default::default() };
    let found = store.turns(&filter, Page::newest(10)).await.unwrap();
    assert_eq!(found.into_iter().map(|turn| turn.recorded).collect::<Vec<_>>(), [mine]);
    assert_eq!(store.alias(name).await.unwrap(), None);
    assert!(store.user_by_name(name).await.unwrap().is_none());
    assert_eq!(store.turns(&Default::default(), Page::newest(10)).await.unwrap().len(), 2);
}
