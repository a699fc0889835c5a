//! A model with its objective, as the run loop trains it.

use feilun_model::train::{Coefficients, ParameterInfo, StepError, Trainee};

use crate::data::PackedRow;
use crate::learner::{BoxError, Flat, Learner};
use crate::objective::{Objective, ObjectiveError, StepTotals, Sums};

/// What preferences are measured against.
#[derive(Debug)]
pub enum Reference {
    /// The trained model without its adapter: it is the frozen base.
    Base,
    /// A model of its own, where all of the other is trained.
    Model(Box<Trainee>),
}

/// A model that learns an objective.
#[derive(Debug)]
pub struct ModelLearner {
    trainee: Trainee,
    reference: Reference,
    objective: Objective,
    label_smoothing: f32,
    totals: StepTotals,
    coefficients: Vec<f32>,
}

impl ModelLearner {
    /// Joins a model and an objective; the reference is used by those that need one.
    ///
    /// # Errors
    /// When the objective's settings are out of range.
    pub fn new(
        trainee: Trainee,
        reference: Reference,
        objective: Objective,
        label_smoothing: f32,
    ) -> Result<ModelLearner, ObjectiveError> {
        objective.check()?;
        if !(0.0..1.0).contains(&label_smoothing) {
            let found = f64::from(label_smoothing);
            let (name, expected) = ("label smoothing", "0 to below 1");
            return Err(ObjectiveError::Setting { name, found, expected });
        }
        let (totals, coefficients) = (StepTotals::default(), Vec::new());
        Ok(ModelLearner { trainee, reference, objective, label_smoothing, totals, coefficients })
    }

    /// The model.
    pub fn trainee(&self) -> &Trainee {
        &self.trainee
    }

    /// The frozen model's log-probability of each document's answer; empty where the objective
    /// needs none.
    fn references(&mut self, row: &PackedRow) -> Result<Vec<f64>, StepError> {
        if !self.objective.needs_reference() {
            return Ok(Vec::new());
        }
        let learn = Some(&row.learn[..]);
        let log_probs = match &mut self.reference {
            Reference::Base => self.trainee.score_base(row.batch(), learn)?,
            Reference::Model(model) => model.score(row.batch(), learn)?,
        };
        Ok(row.document_log_probs(log_probs))
    }

    /// z₀ of KTO over the rows of a step.
    fn reference_point(&mut self, rows: &[PackedRow]) -> Result<f64, BoxError> {
        let (mut policies, mut references) = (Vec::new(), Vec::new());
        for row in rows.iter().filter(|row| row.is_measured_only()) {
            let reference = self.references(row)?;
            let policy = self.trainee.score(row.batch(), Some(&row.learn))?;
            let policy = row.document_log_probs(policy);
            policies.extend(policy);
            references.extend(reference);
        }
        Ok(crate::objective::Kto::reference_point(&policies, &references))
    }
}

impl Learner for ModelLearner {
    fn parameters(&self) -> &[ParameterInfo] {
        self.trainee.parameters()
    }

    fn values(&self) -> &[f32] {
        self.trainee.values()
    }

    fn flat_mut(&mut self) -> Flat<'_> {
        let (pool, isa, values, gradients) = self.trainee.values_and_gradients_mut();
        Flat { pool, isa, values, gradients }
    }

    fn begin(&mut self, rows: &[PackedRow]) -> Result<(), BoxError> {
        self.totals = StepTotals::of(rows);
        if let Objective::Kto(_) = self.objective {
            self.totals.reference_point = self.reference_point(rows)?;
        }
        Ok(())
    }

    fn accumulate(&mut self, row: &PackedRow) -> Result<Sums, BoxError> {
        if row.is_measured_only() {
            return Ok(Sums::default());
        }
        let references = self.references(row)?;
        let ModelLearner { trainee, objective, label_smoothing, totals, coefficients, .. } = self;
        coefficients.clear();
        coefficients.resize(row.tokens.len(), 0.0);
        if let Objective::Tokens = objective {
            // The coefficients do not depend on the log-probabilities, so that one pass through
            // the head is enough.
            let unknown = vec![0.0; row.tokens.len()];
            objective.evaluate(row, &unknown, totals, &references, coefficients)?;
            let known =
                Coefficients::Known { values: coefficients, label_smoothing: *label_smoothing };
            let log_probs = trainee.accumulate(row.batch(), known)?;
            let mut again = unknown;
            return Ok(objective.evaluate(row, log_probs, totals, &references, &mut again)?);
        }
        let mut outcome = Ok(Sums::default());
        let mut evaluate = |log_probs: &[f32], coefficients: &mut [f32]| {
            outcome = objective.evaluate(row, log_probs, totals, &references, coefficients);
        };
        let of = Coefficients::Of { learn: &row.learn, of: &mut evaluate };
        trainee.accumulate(row.batch(), of)?;
        Ok(outcome?)
    }

    fn loss(&mut self, row: &PackedRow) -> Result<Sums, BoxError> {
        if row.is_measured_only() {
            return Ok(Sums::default());
        }
        let references = self.references(row)?;
        let ModelLearner { trainee, objective, totals, coefficients, .. } = self;
        coefficients.clear();
        coefficients.resize(row.tokens.len(), 0.0);
        let log_probs = trainee.score(row.batch(), Some(&row.learn))?;
        Ok(objective.evaluate(row, log_probs, totals, &references, coefficients)?)
    }

    fn other_bytes(&self) -> u64 {
        let reference = match &self.reference {
            Reference::Base => 0,
            Reference::Model(model) => model.other_bytes(),
        };
        (self.trainee.other_bytes() + reference) as u64
    }
}
