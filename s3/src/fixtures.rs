//! An endpoint for tests that gives prepared answers, one a connection, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, Options};
use crate::location::Location;

/// The endpoint.
pub(crate) struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

/// An answer; the connection is closed after it.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> String {
    let bytes = body.len();
    format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {bytes}\r\n{headers}\r\n{body}")
}

impl Server {
    /// Listens; an empty answer is a connection that is closed without one.
    pub async fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = asked.clone();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                remembered.lock().unwrap().push(request);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { port, asked }
    }

    /// A client for the bucket `site` there.
    pub fn client(&self) -> Client {
        self.client_with(None)
    }

    /// One that asks once.
    pub fn impatient_client(&self) -> Client {
        self.client_with(Some(1))
    }

    fn client_with(&self, attempts_max: Option<u32>) -> Client {
        let location = Location::parse(&format!("s3://site?endpoint=http://127.0.0.1:{}", self.port)).unwrap();
        let keys = Some(("key".to_owned(), "secret".to_owned()));
        Client::new(location, &Options { keys, attempts_max }).unwrap()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests so far, heads and bodies.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await.unwrap() {
            0 => return text,
            len => bytes.extend_from_slice(&buffer[..len]),
        }
    }
}
