//! A node's API, served and called within one test.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use weft_model::{Assignments, TaskId};
use weft_proto::{
    tls::{bind_unix, serve::server, unix_channel, unix_incoming},
    v1::{
        ExecRequest, ExecResponse,
        agent_service_client::AgentServiceClient,
        agent_service_server::AgentServiceServer,
        container_service_client::ContainerServiceClient,
        container_service_server::ContainerServiceServer,
        exec_request::{Request, Start},
        exec_response::Response,
    },
};
use weft_worker::{
    api::{Agent, Containers, Sources},
    container::{ContainerConfig, ContainerId, Image, Runtime},
    plumbing::{Assigned, Source},
    tasks::labels,
};

use crate::lab::Lab;

/// Messages to the server that may wait.
const QUEUE: usize = 64;

/// Containers, and their API behind a socket. The lab is the last to go: it removes the containers.
pub struct Place {
    pub containers: ContainerServiceClient<Channel>,
    pub agent: AgentServiceClient<Channel>,
    pub assigned: watch::Sender<Assigned>,
    _server: JoinSet<()>,
    pub lab: Lab,
}

impl Place {
    /// Must be called within a runtime.
    pub fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (assigned, told) = watch::channel((Source::None, Arc::new(Assignments::default())));
        let sources = Sources {
            runtime: Arc::new(lab.embedded.clone()),
            assigned: told,
            state_dir: lab.state_dir(),
            local: None,
            health: Arc::default(),
            links: None,
        };
        let socket = lab.dir.path().join("api.sock");
        let incoming = unix_incoming(bind_unix(&socket).expect("socket"));
        let serving = server()
            .add_service(ContainerServiceServer::new(Containers::over(sources.clone())))
            .add_service(AgentServiceServer::new(Agent::over(sources)))
            .serve_with_incoming(incoming);
        let mut tasks = JoinSet::new();
        tasks.spawn(async { serving.await.expect("serving") });
        let channel = unix_channel(&socket);
        Self {
            containers: ContainerServiceClient::new(channel.clone()),
            agent: AgentServiceClient::new(channel),
            assigned,
            _server: tasks,
            lab,
        }
    }

    /// The configuration of a task's container; `start` are the first hex digits of its ID.
    pub fn task(&self, start: &str, task_name: &str, args: &[&str]) -> ContainerConfig {
        let random = TaskId::from_bytes(rand::random()).to_string();
        let id = format!("{start}{}", &random[start.len()..]);
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let image = Image::Rootfs(self.lab.rootfs());
        let mut config = ContainerConfig::new(ContainerId::new(&*id).expect("id"), image, args);
        config.name = format!("{task_name}.{id}");
        let service = task_name.split('.').next().unwrap_or_default();
        config.labels = BTreeMap::from([
            (labels::TASK_NAME.to_owned(), task_name.to_owned()),
            (labels::SERVICE_NAME.to_owned(), service.to_owned()),
            (labels::SERVICE_ID.to_owned(), "5e".repeat(32)),
        ]);
        config
    }

    /// A container that sleeps, and its name.
    pub async fn sleeper(&self) -> String {
        let config = self.task("", "sleeper.1", &["sleep", "1000"]);
        let name = config.name.clone();
        self.lab.started(config).await;
        name
    }

    /// Begins a session whose first message is `first`.
    pub async fn session(&self, first: Request) -> Result<Session, Status> {
        let (requests, queue) = mpsc::channel(QUEUE);
        requests.send(ExecRequest { request: Some(first) }).await.expect("room");
        let mut client = self.containers.clone();
        let answers = client.exec(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Session { requests: Some(requests), answers })
    }

    /// Runs a command to its end, with this input.
    pub async fn run(&self, start: Start, input: &str) -> Result<Told, Status> {
        let mut session = self.session(Request::Start(start)).await?;
        if !input.is_empty() {
            session.say(Request::Stdin(input.into())).await;
        }
        session.requests = None;
        session.rest().await
    }
}

/// A command that `container` is to run.
pub fn command(container: &str, args: &[&str]) -> Start {
    Start {
        container: container.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Start::default()
    }
}

/// One session of `exec`.
pub struct Session {
    /// Dropped when the caller has said all.
    pub requests: Option<mpsc::Sender<ExecRequest>>,
    pub answers: Streaming<ExecResponse>,
}

/// What a session told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub started: u32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub code: Option<i32>,
}

impl Told {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    fn take(&mut self, answer: ExecResponse) {
        assert_eq!(self.code, None, "nothing comes after the exit code");
        match answer.response.expect("an answer says something") {
            Response::Started(_) => {
                assert_eq!((self.stdout.len(), self.stderr.len()), (0, 0), "the start comes first");
                self.started += 1;
            }
            Response::Stdout(data) => self.stdout.extend(data),
            Response::Stderr(data) => self.stderr.extend(data),
            Response::ExitCode(code) => self.code = Some(code),
        }
    }
}

impl Session {
    pub async fn say(&self, request: Request) {
        let requests = self.requests.as_ref().expect("not all is said");
        // A session that has ended is seen in its answers.
        let _ = requests.send(ExecRequest { request: Some(request) }).await;
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Result<Told, Status> {
        let mut told = Told::default();
        while let Some(answer) = self.answers.message().await? {
            told.take(answer);
        }
        Ok(told)
    }

    /// Everything up to where standard output has `text`.
    pub async fn until(&mut self, text: &str) -> Told {
        let mut told = Told::default();
        while !told.out().contains(text) {
            let answer = self.answers.message().await.expect("a session without mistakes");
            told.take(answer.unwrap_or_else(|| panic!("{text:?} never came: {told:?}")));
        }
        told
    }
}

/// Processes in the pid namespace of a container, but not its first one.
pub fn guests(first: i32) -> Vec<PathBuf> {
    let namespace =
        std::fs::read_link(format!("/proc/{first}/ns/pid")).expect("the container runs");
    std::fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            std::fs::read_link(path.join("ns/pid")).is_ok_and(|other| other == namespace)
        })
        .filter(|path| !path.ends_with(first.to_string()))
        .collect()
}

/// The first process of the container of this name.
pub async fn first_pid(place: &Place, name: &str) -> i32 {
    let found = place.lab.embedded.list().await.expect("list");
    let named = |config: &ContainerConfig| config.name == name;
    let one = found.iter().find(|found| found.config.as_ref().is_some_and(named));
    one.and_then(|found| found.status.pid).expect("it runs")
}
