//! `cargo run --release -p feilun-model --example bench MODEL [THREADS [TEST]]`

use std::sync::Arc;

use feilun_kernels::Pool;
use feilun_model::bench::{InferTest, infer_seconds};
use feilun_model::{Model, ModelFiles, Session, SessionOptions};

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("a model file");
    let threads = args.next().map_or(2, |n| n.parse().expect("threads"));
    let only = args.next();
    let clock = std::time::Instant::now();
    let files = ModelFiles::open(path).expect("model");
    let mut pool = Pool::new(threads).expect("pool");
    let model = Arc::new(Model::load(&files, &mut pool).expect("weights"));
    println!("loaded in {:?}, {} MB", clock.elapsed(), model.weight_bytes() / 1_000_000);
    let mut options = SessionOptions::new(files.config());
    options.num_blocks = 320;
    let mut session = Session::new(model, pool, options).expect("session");
    for (name, prompt_tokens, generate_tokens, sequences, depth) in [
        ("pp512", 512, 0, 1, 0),
        ("tg128", 0, 128, 1, 0),
        ("x2", 16, 48, 2, 0),
        ("x4", 16, 48, 4, 0),
        ("x16", 16, 48, 16, 0),
        ("d128", 0, 32, 1, 128),
        ("d4096", 0, 32, 1, 4096),
    ] {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let test = InferTest { prompt_tokens, generate_tokens, sequences, depth };
        infer_seconds(&mut session, &test).expect("warm-up");
        let mut rates: Vec<f64> = (0..3)
            .map(|_| {
                let seconds = infer_seconds(&mut session, &test).expect("run");
                test.timed_tokens() as f64 / seconds
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!("{name:6} {:8.1} tok/s  ({:.1} to {:.1})", rates[1], rates[0], rates[2]);
    }
}
