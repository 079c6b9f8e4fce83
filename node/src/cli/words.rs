//! What the 24 words say of their account: signed in the process where they were typed. No daemon hears them.

use std::path::Path;

use api::clock::now_secs;
use api::failure::{Exit, Failure};
use api::request::Word;
use engine::home::{HomePaths, Identity};
use friendnet::roster::Roster;
use proto::keys::{AccountKeys, DeviceCert, power, words_key};
use proto::phrase::Seed;
use proto::wire::word::AccountWord;

use super::phrase::read_phrase;

/// The account's next word, after `change`, signed.
pub fn say(
    paths: &HomePaths,
    phrase_file: &Path,
    change: impl FnOnce(&Roster, &mut AccountWord) -> Result<(), Failure>,
) -> Result<Word, Failure> {
    let own = Identity::cert(paths)?;
    let account = own.account;
    let (seed, roster) = seed_and_roster(paths, phrase_file, &own)?;
    let mut word = roster.next_word(account);
    // Also newer than what a home that was lost had said, which this one does not know.
    word.seq = word.seq.max(now_secs());
    change(&roster, &mut word)?;
    Ok(Word::of(&word.signed(&words_key(&seed))))
}

/// Whether words may be typed on this machine: one that was revoked may be a thief's, and one that may not speak for the account cannot
/// say again what a revoked one had said.
fn check_speaks(roster: &Roster, own: &DeviceCert) -> Result<(), Failure> {
    if !roster.is_in_force(own) {
        return Err(Failure::new(
            Exit::Failed,
            "The account has revoked this machine: its words are not safe here",
        )
        .hint("type them on another machine of the account, or on a blank one with `gridbackup recover`"));
    }
    match own.powers & power::ADMIT {
        0 => Err(Failure::new(Exit::Failed, "This machine may not speak for its account")
            .hint("type the words on one that may")),
        _ => Ok(()),
    }
}

/// The words' seed, if they are those of this home's account and may be typed here, and the roster that they are said about.
pub fn seed_and_roster(paths: &HomePaths, phrase_file: &Path, own: &DeviceCert) -> Result<(Seed, Roster), Failure> {
    let seed = read_phrase(phrase_file)?;
    if AccountKeys::from_seed(&seed).account_id() != own.account {
        let text = format!("The account in {} is not the phrase's", paths.state_dir().display());
        return Err(Failure::new(Exit::WrongPhrase, text).hint("use the phrase of this account"));
    }
    let Some(roster) = Roster::load(&paths.roster()) else {
        return Err(
            Failure::new(Exit::Failed, "This node has no grid yet, and nobody to tell")
                .hint("`gridbackup join` a friend's grid first, or start the daemon once"),
        );
    };
    check_speaks(&roster, own)?;
    Ok((seed, roster))
}
