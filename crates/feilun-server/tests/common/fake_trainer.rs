//! A trainer that does what a test tells it, at once.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::{Arc, Mutex};

use feilun_server::training::{Ending, News, Objective, Trained, Trainer, Training, TrainingOrder};
use feilun_store::digest::ModelDigest;

/// What becomes of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Plan {
    /// They end well.
    #[default]
    Finish,
    /// They go on until they are interrupted.
    GoOn,
    /// They go on until they are killed.
    HearNothing,
    /// They cannot be done.
    Fail,
    /// Their process dies, at once.
    Die,
}

#[derive(Debug, Default)]
pub(crate) struct FakeTrainer {
    pub(crate) plan: Arc<Mutex<Plan>>,
    pub(crate) orders: Mutex<Vec<TrainingOrder>>,
    pub(crate) signals: Arc<Mutex<Vec<&'static str>>>,
}

impl FakeTrainer {
    pub(crate) fn set(&self, plan: Plan) {
        *self.plan.lock().unwrap() = plan;
    }
}

/// The digest of the model that every job makes.
pub(crate) const MADE: [u8; 32] = [7; 32];

impl Trainer for FakeTrainer {
    fn check(&self, examples: File, _: Option<Objective>) -> Result<u64, String> {
        let mut number = 0;
        for line in BufReader::new(examples).lines() {
            number += 1;
            if !line.map_err(|error| error.to_string())?.starts_with('{') {
                return Err(format!("line {number}: no object"));
            }
        }
        Ok(number)
    }

    fn start(&self, order: &TrainingOrder) -> Result<Box<dyn Training>, String> {
        assert!(order.examples.exists(), "{order:?}");
        self.orders.lock().unwrap().push(order.clone());
        let (plan, signals) = (Arc::clone(&self.plan), Arc::clone(&self.signals));
        Ok(Box::new(FakeTraining { plan, signals, ended_by: None, told: false }))
    }
}

struct FakeTraining {
    plan: Arc<Mutex<Plan>>,
    signals: Arc<Mutex<Vec<&'static str>>>,
    ended_by: Option<&'static str>,
    told: bool,
}

impl FakeTraining {
    fn signal(&mut self, signal: &'static str, plan: Plan) {
        self.signals.lock().unwrap().push(signal);
        if *self.plan.lock().unwrap() == plan {
            self.ended_by = Some(signal);
        }
    }
}

impl Training for FakeTraining {
    fn news(&mut self) -> Vec<News> {
        if std::mem::replace(&mut self.told, true) {
            return Vec::new();
        }
        let step = |step: u64| News::Step { step, loss: 1.0 / step as f64, learning_rate: 0.1 };
        let start = News::Started { step: 0, num_steps: 3 };
        vec![start, step(1), step(2), step(3), News::Evaluation { step: 3, loss: 0.5 }]
    }

    fn ending(&mut self) -> Option<Ending> {
        let plan = *self.plan.lock().unwrap();
        let broken_off = |reason: &str| Ending::BrokenOff { reason: reason.to_owned() };
        match plan {
            _ if self.ended_by.is_some() => Some(broken_off(self.ended_by.unwrap_or_default())),
            Plan::Finish => Some(Ending::Trained(Trained {
                digest: ModelDigest::from_bytes(MADE),
                base: ModelDigest::from_bytes([1; 32]),
                size_bytes: 12,
                num_tokens: 345,
            })),
            Plan::Fail => Some(Ending::Failed { reason: "line 3: no".to_owned() }),
            Plan::Die => Some(broken_off("the trainer died of signal 9")),
            Plan::GoOn | Plan::HearNothing => None,
        }
    }

    fn interrupt(&mut self) {
        self.signal("interrupt", Plan::GoOn);
    }

    fn kill(&mut self) {
        self.signal("kill", Plan::HearNothing);
    }
}
