//! Label-free figures of a step: what shows a run going wrong without a single reference answer.

use medevo_types::messages::Group;

use crate::{
    GroupOutcome, ScoredGroup,
    advantage::{mean, sd},
    answers::Answers,
    label::Choice,
    reward::Terms,
};

/// What is known of one group when the figures are drawn up.
pub struct Measured<'a> {
    /// As it was drawn.
    pub group: &'a Group,
    /// Its distinct answers.
    pub answers: &'a Answers,
    /// Its label; none when every answer is empty.
    pub choice: Option<&'a Choice>,
    /// Reward terms of each candidate, `[N]`.
    pub terms: &'a [Terms],
    /// The verdict.
    pub scored: &'a ScoredGroup,
    /// Whether the label differs from the sample's last one; none on a first visit or without a label.
    pub flipped: Option<bool>,
}

/// The figures by name. Standard deviations have Bessel's correction. Terms and rewards are over all
/// candidates of groups that have a label, abstaining ones included.
pub fn figures(step: &[Measured<'_>]) -> Vec<(String, f64)> {
    let labelled: Vec<&Measured<'_>> = step.iter().filter(|m| m.choice.is_some()).collect();
    let rewards: Vec<f64> =
        labelled.iter().flat_map(|m| m.scored.rewards.iter().copied()).collect();
    let terms: Vec<Terms> = labelled.iter().flat_map(|m| m.terms.iter().copied()).collect();
    let term = |pick: fn(&Terms) -> f64| terms.iter().map(pick).collect::<Vec<f64>>();
    let choices = |pick: fn(&Choice) -> f64| {
        mean(&labelled.iter().filter_map(|m| m.choice).map(pick).collect::<Vec<f64>>())
    };
    let groups =
        |pick: fn(&Measured<'_>) -> f64| mean(&step.iter().map(pick).collect::<Vec<f64>>());
    let outcome =
        |kind: GroupOutcome| step.iter().filter(|m| m.scored.outcome == kind).count() as f64;
    let candidates: Vec<_> = step.iter().flat_map(|m| m.group.candidates.iter()).collect();
    let lengths: Vec<f64> = candidates.iter().map(|c| c.ids.len() as f64).collect();
    let truncated: Vec<f64> = candidates.iter().map(|c| f64::from(u8::from(!c.finished))).collect();
    // Similarities of answers other than the label: if these bunch together, they are noise once the
    // group is normalised.
    let others: Vec<f64> = terms.iter().filter(|t| t.hard == 0.0).map(|t| t.sem).collect();
    let flips: Vec<f64> =
        step.iter().filter_map(|m| m.flipped).map(|f| f64::from(u8::from(f))).collect();

    let mut figures = vec![
        ("reward_mean", mean(&rewards)),
        ("reward_sd", sd(&rewards)),
        ("hard_mean", mean(&term(|t| t.hard))),
        ("hard_sd", sd(&term(|t| t.hard))),
        ("token_mean", mean(&term(|t| t.token))),
        ("token_sd", sd(&term(|t| t.token))),
        ("sem_mean", mean(&term(|t| t.sem))),
        ("sem_sd", sd(&term(|t| t.sem))),
        ("sem_others_sd", sd(&others)),
        ("majority_share", groups(majority_share)),
        ("cluster_share", choices(|c| c.share)),
        ("cluster_margin", choices(|c| c.margin)),
        ("label_entropy", choices(|c| c.entropy)),
        ("answer_tokens", mean(&lengths)),
        ("distinct_answers", groups(|m| m.answers.distinct.len() as f64)),
        ("truncated_share", mean(&truncated)),
        ("rollout_entropy", groups(|m| f64::from(m.group.entropy))),
        ("groups_trained", outcome(GroupOutcome::Train)),
        ("groups_abstained", outcome(GroupOutcome::Abstained)),
        ("groups_no_variance", outcome(GroupOutcome::NoVariance)),
    ];
    if !flips.is_empty() {
        figures.push(("flip_rate", mean(&flips)));
    }
    figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Share of the candidates that gave the most frequent normalised answer.
fn majority_share(measured: &Measured<'_>) -> f64 {
    let most = measured.answers.distinct.iter().map(|a| a.count()).max().unwrap_or(0);
    most as f64 / measured.answers.candidates().max(1) as f64
}
