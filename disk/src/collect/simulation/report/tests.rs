use super::*;

/// As issued by the design: write amplification, stored over needed while written, and after settling.
fn stays_within_bounds(scenario: Scenario) {
    let figures = run(scenario, Policy::default());
    println!("{scenario:?}: {figures:#?}");
    assert!(figures.overwrites >= 3_000_000);
    assert!(figures.busy_amplification <= 2.2, "{figures:?}");
    assert!(figures.busy_stored_peak <= 1.4, "{figures:?}");
    assert!(figures.settled_stored <= 1.1, "{figures:?}");
}

#[test]
fn uniform_overwrites_stay_within_bounds() {
    stays_within_bounds(Scenario::new(Pattern::Uniform));
}

#[test]
fn skewed_overwrites_stay_within_bounds() {
    stays_within_bounds(Scenario::new(Pattern::Skewed));
}

#[test]
fn sequential_overwrites_stay_within_bounds() {
    stays_within_bounds(Scenario::new(Pattern::Sequential));
}

#[test]
fn a_database_stays_within_bounds() {
    stays_within_bounds(Scenario::new(Pattern::Database));
}
