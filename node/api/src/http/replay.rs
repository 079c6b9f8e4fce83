//! Requests that change something, by the key that the client chose: a repeated key gets the first one's answer, whether
//! that is still being made or finished, by this process or one before it (`keys`). Bounded; what was interrupted has no answer, so
//! that a repeat goes on with it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Executor;
use super::keys::{Answer, Keys, Known, asked};
use crate::clock;
use crate::failure::{Exit, Failure, Kind};
use crate::message::Message;
use crate::output::{Output, Sink, channel};
use crate::request::Request;

/// One step of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// More.
    Output(Output),
    /// The end.
    End(Result<Exit, Failure>),
}

/// An answer as it is made; ends with `Step::End`.
pub type Steps = BoxStream<'static, Step>;

/// Requests that are executed at once. Chosen: more than scripts have in flight, each of which takes some kilobytes.
const RUNS_MAX: usize = 4096;

/// Messages kept of one answer besides its last; a reader who comes late misses problems of single files beyond it.
const MESSAGES_MAX: usize = 10_000;

/// Whoever executes the requests of one server, until it stops.
#[derive(Clone)]
pub struct Workers {
    executor: Arc<dyn Executor>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Workers {
    /// Requests are told to stop when `stop` is cancelled.
    pub fn new(executor: Arc<dyn Executor>, stop: CancellationToken) -> Self {
        Self {
            executor,
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Executes one request whose answer only the asker reads: dropping the steps stops the work.
    pub fn execute(&self, request: Request) -> Steps {
        let (sink, outputs) = channel(self.stop.clone());
        let task = self.spawn(request, sink);
        stream::unfold(Some((outputs, task)), |state| async move {
            let (mut outputs, task) = state?;
            match outputs.next().await {
                Some(output) => Some((Step::Output(output), Some((outputs, task)))),
                None => Some((Step::End(ending(task.await)), None)),
            }
        })
        .boxed()
    }

    /// Waits until all requests have ended; the server has stopped. May be dropped.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn spawn(&self, request: Request, sink: Sink) -> JoinHandle<Result<Exit, Failure>> {
        self.tasks.spawn(self.executor.clone().execute(request, sink))
    }
}

fn ending(joined: Result<Result<Exit, Failure>, tokio::task::JoinError>) -> Result<Exit, Failure> {
    joined.unwrap_or_else(|error| {
        Err(Failure::context("The daemon failed at this request", &error).hint("its log says more; please report it"))
    })
}

/// The keyed requests of one daemon.
pub struct Runs {
    /// Those that are being executed.
    live: Mutex<HashMap<String, Arc<Run>>>,
    keys: Keys,
    /// Held while a key is looked for and noted: of two requests with one key, one is the repeat.
    beginning: tokio::sync::Mutex<()>,
}

struct Run {
    request: Request,
    record: Mutex<Record>,
    version: watch::Sender<u64>,
    readers: AtomicUsize,
    /// Cancelled when its last reader leaves before the end.
    stop: CancellationToken,
}

#[derive(Default)]
struct Record {
    messages: Vec<Message>,
    progress: Option<Message>,
    ending: Option<Result<Exit, Failure>>,
}

impl Runs {
    /// With the keys that processes before this one noted.
    pub fn new(keys: Keys) -> Arc<Self> {
        Arc::new(Self {
            live: Mutex::default(),
            keys,
            beginning: tokio::sync::Mutex::default(),
        })
    }

    /// The answer to a keyed request: begun if the key is new. The work stops when its last reader is gone.
    pub async fn execute(self: &Arc<Self>, workers: &Workers, key: &str, request: Request) -> Result<Steps, Failure> {
        let other = || {
            Failure::new(Exit::Usage, format!("Key `{key}` was used for another request"))
                .kind(Kind::Conflict)
                .hint("choose a new Idempotency-Key for each new request")
        };
        let _one_at_a_time = self.when_none_ends(key).await;
        if let Some(run) = self.live(key) {
            return match run.request == request {
                true => Ok(run.steps()),
                false => Err(other()),
            };
        }
        if locked(&self.live).len() >= RUNS_MAX {
            let error = format!("{RUNS_MAX} requests are being executed already");
            let refused = Failure::new(Exit::Failed, error).kind(Kind::TooMany);
            return Err(refused.hint("wait until one ends"));
        }
        let (keys, named, asked) = (self.keys.clone(), key.to_owned(), asked(&request));
        let noting = tokio::task::spawn_blocking(move || keys.begin(&named, &asked, clock::now_ns() / 1_000_000_000));
        let known = noting.await.map_err(|error| Failure::from_error(&error))?;
        match known {
            Known::Answered(answer) => return Ok(replayed(answer)),
            Known::Other => return Err(other()),
            Known::Unanswered => {}
        }
        let run = Arc::new(Run {
            request: request.clone(),
            record: Mutex::default(),
            version: watch::channel(0).0,
            readers: AtomicUsize::new(0),
            stop: workers.stop.child_token(),
        });
        locked(&self.live).insert(key.to_owned(), run.clone());
        let steps = run.clone().steps();
        tokio::spawn(record(self.clone(), key.to_owned(), run, workers.clone(), request));
        Ok(steps)
    }

    /// The turn to begin, when nothing that was told to stop is still ending under this key: beside it the deed might be done twice.
    async fn when_none_ends(&self, key: &str) -> tokio::sync::MutexGuard<'_, ()> {
        loop {
            let turn = self.beginning.lock().await;
            let live = locked(&self.live).get(key).cloned();
            let Some(ending) = live.filter(|run| run.was_interrupted()) else {
                return turn;
            };
            drop(turn);
            let mut version = ending.version.subscribe();
            let has_ended = |_: &u64| locked(&ending.record).ending.is_some();
            drop(version.wait_for(has_ended).await);
            // It is taken out of the list next.
            tokio::task::yield_now().await;
        }
    }

    /// What is being executed under this key. What nobody waited for any more is not.
    fn live(&self, key: &str) -> Option<Arc<Run>> {
        let run = locked(&self.live).get(key).cloned();
        run.filter(|run| !run.was_interrupted())
    }
}

/// An answer that was given before.
fn replayed(answer: Answer) -> Steps {
    let messages = answer.messages.into_iter().map(Output::Message).map(Step::Output);
    stream::iter(messages.chain([Step::End(answer.ending)])).boxed()
}

async fn record(runs: Arc<Runs>, key: String, run: Arc<Run>, workers: Workers, request: Request) {
    let (sink, mut outputs) = channel(run.stop.clone());
    let task = workers.spawn(request, sink);
    while let Some(output) = outputs.next().await {
        // Content is only ever read, never the answer to a change.
        if let Output::Message(message) = output {
            run.change(|record| record.push(message));
        }
    }
    let ending = ending(task.await);
    // What was done is done, though nobody waited for the answer: a connection that broke is why requests are repeated.
    if !run.was_interrupted() || ending.is_ok() {
        let answer = Answer {
            messages: locked(&run.record).messages.clone(),
            ending: ending.clone(),
        };
        let (keys, named) = (runs.keys.clone(), key.clone());
        let noted = tokio::task::spawn_blocking(move || keys.end(&named, &answer)).await;
        if let Err(error) = noted {
            tracing::warn!(%error, "an answer is not noted");
        }
    }
    run.change(|record| record.ending = Some(ending));
    let mut live = locked(&runs.live);
    // A repeat of what was interrupted may have taken its place.
    if live.get(&key).is_some_and(|known| Arc::ptr_eq(known, &run)) {
        live.remove(&key);
    }
}

impl Record {
    fn push(&mut self, message: Message) {
        match message {
            Message::Progress(_) => self.progress = Some(message),
            Message::Problem(_) if self.messages.len() >= MESSAGES_MAX => {}
            message => self.messages.push(message),
        }
    }
}

impl Run {
    fn change(&self, change: impl FnOnce(&mut Record)) {
        change(&mut locked(&self.record));
        self.version.send_modify(|version| *version += 1);
    }

    fn was_interrupted(&self) -> bool {
        self.stop.is_cancelled()
    }

    fn steps(self: Arc<Self>) -> Steps {
        self.readers.fetch_add(1, Ordering::SeqCst);
        let versions = self.version.subscribe();
        let reader = Reader {
            run: self,
            position: 0,
            progress: None,
            versions,
        };
        stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            let step = reader.next().await;
            let reader = if matches!(step, Step::End(_)) {
                None
            } else {
                Some(reader)
            };
            Some((step, reader))
        })
        .boxed()
    }
}

struct Reader {
    run: Arc<Run>,
    position: usize,
    progress: Option<Message>,
    versions: watch::Receiver<u64>,
}

impl Reader {
    async fn next(&mut self) -> Step {
        loop {
            self.versions.mark_unchanged();
            if let Some(step) = self.next_now() {
                return step;
            }
            if self.versions.changed().await.is_err() {
                return Step::End(Err(Failure::interrupted()));
            }
        }
    }

    fn next_now(&mut self) -> Option<Step> {
        let record = locked(&self.run.record);
        if let Some(message) = record.messages.get(self.position) {
            self.position += 1;
            return Some(Step::Output(Output::Message(message.clone())));
        }
        if let Some(ending) = &record.ending {
            return Some(Step::End(ending.clone()));
        }
        if record.progress != self.progress {
            self.progress.clone_from(&record.progress);
            return self
                .progress
                .clone()
                .map(|progress| Step::Output(Output::Message(progress)));
        }
        None
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let last = self.run.readers.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && locked(&self.run.record).ending.is_none() {
            self.run.stop.cancel();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds one of these locks")
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;
    use crate::request::{Join, RunOnce};

    async fn all(mut steps: Steps) -> Vec<Step> {
        let mut all = Vec::new();
        while let Some(step) = steps.next().await {
            all.push(step);
        }
        all
    }

    fn run_once() -> Request {
        Request::RunOnce(RunOnce {
            paths: Vec::new(),
            accept_emptied: false,
        })
    }

    fn noted() -> (tempfile::TempDir, Keys) {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(&dir.path().join("requests.db"));
        (dir, keys)
    }

    async fn asked_of(runs: &Arc<Runs>, workers: &Workers, key: &str, request: Request) -> Vec<Step> {
        all(runs.execute(workers, key, request).await.unwrap()).await
    }

    #[tokio::test]
    async fn a_repeated_key_repeats_the_answer_and_not_the_deed_in_this_process_and_the_next() {
        let fake = Arc::new(Fake::default());
        let workers = Workers::new(fake.clone(), CancellationToken::new());
        let (_dir, keys) = noted();
        let runs = Runs::new(keys.clone());
        let first = asked_of(&runs, &workers, "k", run_once()).await;
        for runs in [runs, Runs::new(keys)] {
            assert_eq!(asked_of(&runs, &workers, "k", run_once()).await, first);
            assert_eq!(fake.executed(), 1);
            let other = runs.execute(&workers, "k", Request::Stop).await.err().unwrap();
            assert_eq!(other.kind, Kind::Conflict);
        }
        assert!(matches!(first.last(), Some(Step::End(Ok(_)))));
    }

    #[tokio::test]
    async fn of_many_with_one_key_at_once_one_is_executed() {
        let fake = Arc::new(Fake::default());
        let workers = Workers::new(fake.clone(), CancellationToken::new());
        let (_dir, keys) = noted();
        let runs = Runs::new(keys);
        let asking = (0..200).map(|_| asked_of(&runs, &workers, "k", run_once()));
        let answers = futures::future::join_all(asking).await;
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(fake.executed(), 1);
        assert!(locked(&runs.live).is_empty());
    }

    #[tokio::test]
    async fn work_stops_with_its_last_reader_and_a_repeat_begins_it_again() {
        let fake = Arc::new(Fake::default());
        let workers = Workers::new(fake.clone(), CancellationToken::new());
        let (_dir, keys) = noted();
        let runs = Runs::new(keys);
        let endless = Request::Join(Join {
            ticket: "endless".into(),
            word: None,
        });
        let mut steps = runs.execute(&workers, "k", endless.clone()).await.unwrap();
        steps.next().await.unwrap();
        drop(steps);
        fake.stopped().await;
        let mut again = runs.execute(&workers, "k", endless).await.unwrap();
        again.next().await.unwrap();
        assert_eq!(fake.executed(), 2);
    }

    /// A repeat after a connection that broke made a second snapshot.
    #[tokio::test]
    async fn what_was_done_though_nobody_waited_is_not_done_again() {
        let fake = Arc::new(Fake::default());
        let workers = Workers::new(fake.clone(), CancellationToken::new());
        let (_dir, keys) = noted();
        let runs = Runs::new(keys);
        for number in 0..50 {
            let key = number.to_string();
            let mut steps = runs.execute(&workers, &key, run_once()).await.unwrap();
            if number % 2 == 0 {
                steps.next().await.unwrap();
            }
            drop(steps);
            let again = asked_of(&runs, &workers, &key, run_once()).await;
            assert!(matches!(again.last(), Some(Step::End(Ok(_)))), "{again:?}");
        }
        let executed = fake.executed();
        for number in 0..50 {
            asked_of(&runs, &workers, &number.to_string(), run_once()).await;
        }
        assert_eq!(fake.executed(), executed);
    }

    /// The 65th answer made the first one be forgotten, and a repeat of it a second ticket.
    #[tokio::test]
    async fn an_answer_is_known_behind_many_others() {
        let fake = Arc::new(Fake::default());
        let workers = Workers::new(fake.clone(), CancellationToken::new());
        let (_dir, keys) = noted();
        let runs = Runs::new(keys);
        for key in 0..300 {
            asked_of(&runs, &workers, &key.to_string(), run_once()).await;
        }
        asked_of(&runs, &workers, "0", run_once()).await;
        assert_eq!(fake.executed(), 300);
    }
}
