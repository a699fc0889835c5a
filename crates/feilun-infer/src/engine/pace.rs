//! How many prompt tokens a step may take on, so that those who wait for their next token do not
//! wait too long.
//!
//! The time of a step is estimated as `step + answer_row * answers + prompt_row * prompt tokens`.
//! Steps without prompts teach the first two costs, and now and then such a step is asked for;
//! what others take beyond that is the prompt's. So the estimates follow the machine, the model,
//! and the depth of the prompt that is being computed.

use std::time::Duration;

/// How long those who wait for their next token may wait for the prompts of others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLimit {
    /// A step may take so long,
    pub target: Duration,
    /// or so many times what it takes without prompts, whichever is longer. More than 1, so that
    /// prompts go on however long answers take.
    pub slowdown_max: f64,
}

/// Rows of a step, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StepWork {
    pub(super) answer_rows: usize,
    pub(super) prompt_rows: usize,
}

/// What a step costs beside its rows, in rows, as long as nothing else is known.
const STEP_ROWS: f64 = 2.0;
/// How much of an error is corrected at once.
const RATE: f64 = 0.3;
/// No single step is believed to be further off than this: the machine may have been busy
/// with something else.
const ERROR_MAX: f64 = 2.0;
/// The share of the limit that is aimed at, since estimates miss on both sides.
const AIM: f64 = 0.9;
/// Prompt tokens of a step as long as nothing has been measured.
const UNMEASURED_ROWS: usize = 16;
/// Steps with prompts until one without is measured: they cost prompts 3 % of their speed.
const MIXED_STEPS_MAX: usize = 32;
/// The same when there are many more or fewer answers than then.
const MIXED_STEPS_CHANGED: usize = 4;

/// In seconds.
#[derive(Clone, Copy, Debug)]
struct Costs {
    step: f64,
    answer_row: f64,
    prompt_row: f64,
}

impl Costs {
    /// A guess, from one step.
    fn guess(num_rows: usize, seconds: f64) -> Costs {
        let row = seconds / (STEP_ROWS + num_rows as f64);
        Costs { step: STEP_ROWS * row, answer_row: row, prompt_row: row }
    }

    fn answers(&self, answer_rows: usize) -> f64 {
        self.step + self.answer_row * answer_rows as f64
    }
}

/// Running estimates of what rows cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    costs: Option<Costs>,
    /// Answers of the last step without prompts.
    answers_alone: Option<usize>,
    mixed_steps: usize,
}

impl Pace {
    /// Learns from a step.
    pub(super) fn record(&mut self, work: StepWork, time: Duration) {
        let StepWork { answer_rows, prompt_rows } = work;
        let seconds = time.as_secs_f64();
        if answer_rows + prompt_rows == 0 {
            // A step without prompts had nothing to do: asking for it again would be no use.
            self.mixed_steps = 0;
            return;
        }
        if seconds <= 0.0 {
            return;
        }
        let guess = Costs::guess(answer_rows + prompt_rows, seconds);
        let costs = self.costs.get_or_insert(guess);
        if prompt_rows > 0 {
            let found = (seconds - costs.answers(answer_rows)) / prompt_rows as f64;
            let found = found.clamp(costs.prompt_row / ERROR_MAX, costs.prompt_row * ERROR_MAX);
            costs.prompt_row += RATE * (found - costs.prompt_row);
            self.mixed_steps += 1;
            return;
        }
        self.mixed_steps = 0;
        if self.answers_alone.replace(answer_rows).is_none() {
            (costs.step, costs.answer_row) = (guess.step, guess.answer_row);
            return;
        }
        // Each is corrected by its share, and so that the sum is corrected by `RATE`.
        let parts = [costs.step, costs.answer_row * answer_rows as f64];
        let expected = parts[0] + parts[1];
        let error = (seconds / expected).clamp(1.0 / ERROR_MAX, ERROR_MAX) - 1.0;
        let scale = RATE * error * expected / (parts[0] * parts[0] + parts[1] * parts[1]);
        costs.step *= 1.0 + scale * parts[0];
        costs.answer_row *= 1.0 + scale * parts[1];
    }

    /// How long a step of so many answers takes without prompts, once something was measured.
    pub(super) fn answers(&self, answer_rows: usize) -> Option<Duration> {
        Some(Duration::from_secs_f64(self.costs.as_ref()?.answers(answer_rows)))
    }

    /// How long a prompt token takes beside others, once something was measured.
    pub(super) fn prompt_row(&self) -> Option<Duration> {
        Some(Duration::from_secs_f64(self.costs.as_ref()?.prompt_row))
    }

    /// Prompt tokens for a step with so many rows of answers. None now and then, else at least
    /// one, so that prompts end.
    pub(super) fn prompt_rows(&self, answer_rows: usize, limit: StepLimit) -> usize {
        let Some(costs) = &self.costs else { return UNMEASURED_ROWS };
        if answer_rows > 0 {
            let has_changed = self.answers_alone.is_none_or(|alone| {
                let (less, more) = (answer_rows.min(alone), answer_rows.max(alone));
                4 * more > 5 * less
            });
            let steps_max = if has_changed { MIXED_STEPS_CHANGED } else { MIXED_STEPS_MAX };
            if self.mixed_steps >= steps_max {
                return 0;
            }
        }
        let answers = if answer_rows > 0 { costs.answers(answer_rows) } else { costs.step };
        let allowed = limit.target.as_secs_f64().max(limit.slowdown_max * answers);
        ((AIM * allowed - answers) / costs.prompt_row).max(1.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: StepLimit = StepLimit { target: Duration::from_millis(20), slowdown_max: 1.5 };

    fn seconds(step: f64, answer: f64, prompt: f64, work: StepWork) -> Duration {
        let rows = answer * work.answer_rows as f64 + prompt * work.prompt_rows as f64;
        Duration::from_secs_f64(step + rows)
    }

    /// The times of steps with so many answers and as many prompt tokens as are allowed, after a
    /// first step with a whole prompt.
    fn run(
        pace: &mut Pace,
        answer_rows: usize,
        cost: impl Fn(StepWork) -> Duration,
    ) -> Vec<Duration> {
        let steps = (0..60).map(|_| {
            let work = StepWork { answer_rows, prompt_rows: pace.prompt_rows(answer_rows, LIMIT) };
            let time = cost(work);
            pace.record(work, time);
            time
        });
        steps.collect()
    }

    #[test]
    fn steps_stay_within_the_target_and_use_it() {
        // From fast to slow machines, and prompts dearer and cheaper than answers.
        for (step, answer, prompt) in
            [(2e-3, 1e-3, 8e-4), (1e-4, 1e-3, 1e-3), (8e-3, 1e-4, 3e-4), (1e-3, 5e-4, 4e-3)]
        {
            let cost = |work| seconds(step, answer, prompt, work);
            let mut pace = Pace::default();
            pace.record(
                StepWork { answer_rows: 0, prompt_rows: 256 },
                cost(StepWork { answer_rows: 0, prompt_rows: 256 }),
            );
            let times = run(&mut pace, 4, cost);
            let row = Duration::from_secs_f64(prompt);
            let alone = cost(StepWork { answer_rows: 4, prompt_rows: 0 });
            for time in times[20..].iter().filter(|time| **time != alone) {
                assert!(*time <= LIMIT.target, "{time:?}");
                assert!(*time + 2 * row >= LIMIT.target * 8 / 10, "{time:?} of {:?}", LIMIT.target);
            }
            assert!(times.iter().filter(|time| **time == alone).count() <= 6);
        }
    }

    #[test]
    fn prompts_go_on_where_answers_take_longer_than_the_target() {
        let cost = |work| seconds(0.05, 1e-3, 1e-3, work);
        let mut pace = Pace::default();
        pace.record(
            StepWork { answer_rows: 1, prompt_rows: 0 },
            cost(StepWork { answer_rows: 1, prompt_rows: 0 }),
        );
        let times = run(&mut pace, 1, cost);
        let alone = Duration::from_millis(51);
        let mixed: Vec<_> = times[20..].iter().filter(|time| **time > alone).collect();
        assert!(mixed.len() > 30);
        assert!(mixed.iter().all(|time| **time > alone * 11 / 10 && **time <= alone * 15 / 10));
    }

    #[test]
    fn estimates_follow_a_machine_that_changes() {
        let mut pace = Pace::default();
        run(&mut pace, 2, |work| seconds(2e-3, 1e-3, 8e-4, work));
        // Someone else takes half of it.
        let times = run(&mut pace, 2, |work| seconds(4e-3, 2e-3, 16e-4, work));
        assert!(times[10..].iter().all(|time| *time <= LIMIT.target), "{times:?}");
    }

    #[test]
    fn one_step_that_took_for_ever_is_soon_forgotten() {
        let mut pace = Pace::default();
        let cost = |work| seconds(2e-3, 1e-3, 8e-4, work);
        run(&mut pace, 2, cost);
        let before = pace.prompt_rows(2, LIMIT);
        pace.record(StepWork { answer_rows: 2, prompt_rows: before }, Duration::from_secs(10));
        assert!(pace.prompt_rows(2, LIMIT) * 2 > before);
    }

    #[test]
    fn a_clock_that_stands_still_teaches_nothing() {
        let mut pace = Pace::default();
        pace.record(StepWork { answer_rows: 1, prompt_rows: 1 }, Duration::ZERO);
        assert_eq!(pace.prompt_rows(1, LIMIT), UNMEASURED_ROWS);
        assert_eq!(pace.answers(1), None);
    }
}
