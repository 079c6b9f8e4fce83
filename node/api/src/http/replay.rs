//! Requests that change something, by the key that the client chose: a repeated key gets the first one's answer, whether
//! that is still being made or finished. Bounded; what was interrupted is forgotten, so that a repeat goes on with it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Executor;
use crate::failure::{Exit, Failure};
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

/// Answers kept. Chosen: far more than a person's commands at once, a few megabytes at most.
const RUNS_MAX: usize = 64;

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
#[derive(Default)]
pub struct Runs(Mutex<VecDeque<(String, Arc<Run>)>>);

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
    /// The answer to a keyed request: begun if the key is new. The work stops when its last reader is gone.
    pub fn execute(&self, workers: &Workers, key: &str, request: Request) -> Result<Steps, Failure> {
        let mut runs = locked(&self.0);
        runs.retain(|(_, run)| !run.was_interrupted());
        if let Some((_, run)) = runs.iter().find(|(known, _)| known == key) {
            if run.request != request {
                return Err(
                    Failure::new(Exit::Usage, format!("Key `{key}` was used for another request"))
                        .hint("choose a new Idempotency-Key for each new request"),
                );
            }
            return Ok(run.clone().steps());
        }
        if runs.len() >= RUNS_MAX {
            let Some(oldest) = runs.iter().position(|(_, run)| locked(&run.record).ending.is_some()) else {
                return Err(
                    Failure::new(Exit::Failed, format!("{RUNS_MAX} requests are being executed already"))
                        .hint("wait until one ends"),
                );
            };
            runs.remove(oldest);
        }
        let run = Arc::new(Run {
            request: request.clone(),
            record: Mutex::default(),
            version: watch::channel(0).0,
            readers: AtomicUsize::new(0),
            stop: workers.stop.child_token(),
        });
        runs.push_back((key.to_owned(), run.clone()));
        let steps = run.clone().steps();
        tokio::spawn(record(run, workers.clone(), request));
        Ok(steps)
    }
}

async fn record(run: Arc<Run>, workers: Workers, request: Request) {
    let (sink, mut outputs) = channel(run.stop.clone());
    let task = workers.spawn(request, sink);
    while let Some(output) = outputs.next().await {
        // Content is only ever read, never the answer to a change.
        if let Output::Message(message) = output {
            run.change(|record| record.push(message));
        }
    }
    let ending = ending(task.await);
    run.change(|record| record.ending = Some(ending));
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

    #[tokio::test]
    async fn a_repeated_key_repeats_the_answer_and_not_the_deed() {
        let fake = Arc::new(Fake::default());
        let workers = Workers::new(fake.clone(), CancellationToken::new());
        let runs = Runs::default();
        let first = all(runs.execute(&workers, "k", run_once()).unwrap()).await;
        let second = all(runs.execute(&workers, "k", run_once()).unwrap()).await;
        assert_eq!(fake.executed(), 1);
        assert_eq!(first.last(), second.last());
        assert!(matches!(first.last(), Some(Step::End(Ok(_)))));
        let other = runs.execute(&workers, "k", Request::Stop).err().unwrap();
        assert_eq!(other.exit, Exit::Usage);
        all(runs.execute(&workers, "k2", run_once()).unwrap()).await;
        assert_eq!(fake.executed(), 2);
    }

    #[tokio::test]
    async fn work_stops_with_its_last_reader_and_a_repeat_begins_it_again() {
        let fake = Arc::new(Fake::default());
        let workers = Workers::new(fake.clone(), CancellationToken::new());
        let runs = Runs::default();
        let endless = Request::Join(Join {
            ticket: "endless".into(),
            word: None,
        });
        let mut steps = runs.execute(&workers, "k", endless.clone()).unwrap();
        steps.next().await.unwrap();
        drop(steps);
        fake.stopped().await;
        let mut again = runs.execute(&workers, "k", endless).unwrap();
        again.next().await.unwrap();
        assert_eq!(fake.executed(), 2);
    }

    #[tokio::test]
    async fn finished_answers_make_room() {
        let workers = Workers::new(Arc::new(Fake::default()), CancellationToken::new());
        let runs = Runs::default();
        for key in 0..RUNS_MAX + 5 {
            all(runs.execute(&workers, &key.to_string(), run_once()).unwrap()).await;
        }
        assert_eq!(locked(&runs.0).len(), RUNS_MAX);
    }
}
