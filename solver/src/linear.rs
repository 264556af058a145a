//! Linear programs, some of their variables whole numbers, and what came of them, through good_lp: microlp, or HiGHS with the
//! feature `highs`.

use crate::Effort;
use good_lp::solvers::SolverModel;
use good_lp::{Expression, ProblemVariables, Variable, variable};
use moesim_core::{Diag, Result};

/// A variable by number.
pub(crate) type Var = usize;

/// Variables with their factors.
type Terms = Vec<(Var, f64)>;

/// A row: the sum of terms is at most, or exactly, `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    AtMost,
    Exactly,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    cost: f64,
    most: f64,
    whole: bool,
    start: f64,
}

/// A program: the least cost within its rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinearProgram {
    columns: Vec<Column>,
    rows: Vec<(Terms, Rule, f64)>,
}

/// A solution of a program.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) values: Vec<f64>,
    /// What no solution beats, as the solver proved.
    pub(crate) bound: f64,
    /// The clock cut it.
    pub(crate) cut: bool,
}

impl Found {
    pub(crate) fn is(&self, v: Var) -> bool {
        self.values[v] > 0.5
    }
}

impl LinearProgram {
    /// A variable of 0 or 1.
    pub(crate) fn choice(&mut self, cost: f64) -> Var {
        self.columns.push(Column { cost, most: 1.0, whole: true, start: 0.0 });
        self.columns.len() - 1
    }

    /// A variable from 0 to `most`.
    pub(crate) fn amount(&mut self, cost: f64, most: f64) -> Var {
        self.columns.push(Column { cost, most, whole: false, start: 0.0 });
        self.columns.len() - 1
    }

    pub(crate) fn row(&mut self, terms: Terms, rule: Rule, of: f64) {
        self.rows.push((terms, rule, of));
    }

    /// Where the search starts: a value of every variable within all rows.
    pub(crate) fn start(&mut self, v: Var, value: f64) {
        self.columns[v].start = value;
    }

    /// The value that it starts with.
    pub(crate) fn started(&self, v: Var) -> f64 {
        self.columns[v].start
    }

    /// Adds to the cost of a variable.
    pub(crate) fn charge(&mut self, v: Var, cost: f64) {
        self.columns[v].cost += cost;
    }

    pub(crate) fn forbid(&mut self, v: Var) {
        self.columns[v].most = 0.0;
    }

    /// Solves it from its start; without one that holds, from nothing. `None`: nothing was found within the limits.
    ///
    /// # Errors
    /// A program without solutions, or a solver that fails.
    pub(crate) fn solve(&self, effort: &Effort) -> Result<Option<Found>> {
        // Rates and counts differ by many orders of magnitude; solvers want numbers near one. Without a constant, so that gaps
        // are relative to the value itself.
        let largest = self.columns.iter().map(|c| c.cost.abs()).fold(0.0, f64::max);
        let scale = if largest > 0.0 { 1.0 / largest } else { 1.0 };
        let mut variables = ProblemVariables::new();
        let all: Vec<Variable> = self
            .columns
            .iter()
            .map(|c| {
                let v = variable().min(0.0).max(c.most);
                variables.add(if c.whole { v.integer() } else { v })
            })
            .collect();
        let cost: Expression = self.columns.iter().zip(&all).map(|(c, v)| c.cost * scale * *v).sum();
        let problem = variables.minimise(cost);
        let found = self.run(problem, &all, effort)?;
        Ok(found.map(|f| Found { bound: f.bound / scale, ..f }))
    }

    fn fill<M: SolverModel>(&self, mut model: M, all: &[Variable]) -> M {
        for (terms, rule, of) in &self.rows {
            let sum: Expression = terms.iter().map(|(v, c)| *c * all[*v]).sum();
            model.add_constraint(if *rule == Rule::Exactly { sum.eq(*of) } else { sum.leq(*of) });
        }
        model
    }

    #[cfg(not(feature = "highs"))]
    fn run(
        &self,
        problem: good_lp::variable::UnsolvedProblem,
        all: &[Variable],
        effort: &Effort,
    ) -> Result<Option<Found>> {
        use microlp::{OptimizationDirection, Problem, SolveOptions, SolveOutcome, TerminationReason};
        let model = self.fill(good_lp::microlp(problem), all);
        // A variable of microlp is no more than its number: those of another problem with as many stand for them.
        let mut numbered = Problem::new(OptimizationDirection::Minimize);
        let numbers: Vec<microlp::Variable> = all.iter().map(|_| numbered.add_var(0.0, (0.0, 1.0))).collect();
        let mut options = SolveOptions::default();
        options.node_limit = Some(effort.steps);
        options.mip_gap = effort.gap;
        options.time_limit = effort.until.map(|t| t.saturating_duration_since(std::time::Instant::now()));
        options.warm_start = Some(numbers.iter().zip(&self.columns).map(|(n, c)| (*n, c.start)).collect());
        let outcome = match model.as_inner().solve_with(options) {
            Ok(outcome) => outcome,
            Err(microlp::Error::Infeasible) => return Err(infeasible()),
            Err(e) => return Err(failed(&e.to_string())),
        };
        let cut = outcome.termination_reason() == TerminationReason::TimeLimit;
        let SolveOutcome::Solution(solution) = outcome else { return Ok(None) };
        // Whole variables come rounded.
        let values = solution.iter().map(|(_, v)| v).collect();
        let bound = solution.stats().best_bound.unwrap_or(0.0);
        Ok(Some(Found { values, bound, cut }))
    }

    #[cfg(feature = "highs")]
    fn run(
        &self,
        problem: good_lp::variable::UnsolvedProblem,
        all: &[Variable],
        effort: &Effort,
    ) -> Result<Option<Found>> {
        use good_lp::{ResolutionError, Solution, WithMipGap};
        let mut model = self.fill(good_lp::highs(problem), all);
        model.set_verbose(false);
        let nodes = i32::try_from(effort.steps).unwrap_or(i32::MAX);
        let mut model = model.set_threads(1).set_option("mip_max_nodes", nodes);
        if let Some(until) = effort.until {
            model = model.set_time_limit(until.saturating_duration_since(std::time::Instant::now()).as_secs_f64());
        }
        let model = model.with_mip_gap(effort.gap as f32).map_err(|e| failed(&e.to_string()))?;
        // Without the start: with one, HiGHS (highs-sys 1.16.0) called it optimal where it was not (objective 12, 8 is possible; the seed is kept
        // with the tests). Who finds nothing better takes the start anyhow.
        match model.solve() {
            Ok(solution) => {
                let values: Vec<f64> = all.iter().map(|v| solution.value(*v)).collect();
                // good_lp hands out no bound, and a status word proves nothing: those of `crate::bound` have to do.
                Ok(Some(Found { values, bound: 0.0, cut: effort.over() }))
            }
            Err(ResolutionError::Infeasible) => Err(infeasible()),
            Err(ResolutionError::Other("NoSolutionFound")) => Ok(None),
            Err(e) => Err(failed(&e.to_string())),
        }
    }
}

fn infeasible() -> Diag {
    Diag::input("no placement is within the limits").place("limits").cure("allow more slots, memory or moves")
}

fn failed(why: &str) -> Diag {
    Diag::run(format!("the solver failed: {why}")).cure("choose another method")
}
