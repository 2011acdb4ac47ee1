//! A way between containers of two hosts, and what is measured on it. The tools run in the network
//! namespaces of the containers, for all ways alike.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use weft_tests::{Lab, Output, eventually};

use crate::{cluster::PATIENCE, flow};

/// Seconds of one run, and of one that only tells what others are like.
const SECONDS: &str = "3";
const SHORT: &str = "2";
/// Seconds before a run that are not counted: the window grows at first.
const OMITTED: &str = "1";
/// A client that has not ended by then has lost its server.
const LIMIT: &str = "20";
/// Pings of one run, and seconds between them.
const PINGS: &str = "100";
const PING_PAUSE: &str = "0.01";
/// A way that is not there by then does not work.
const TRIES: usize = 20;

/// From a container on host 2 to one on host 1.
pub struct Path<'a> {
    lab: &'a Lab,
    /// A process in the network namespace of each container, by host.
    inside: [u32; 2],
    target: String,
    server: Child,
}

impl<'a> Path<'a> {
    /// With a server on host 1, at the address `target` of its container.
    ///
    /// # Errors
    /// What ping said last, if there is no way.
    pub fn new(lab: &'a Lab, inside: [u32; 2], target: &str) -> Result<Self, String> {
        let server = command(lab, inside, 1, &["iperf3", "-s"])
            .stdout(Stdio::null())
            .spawn()
            .expect("iperf3 runs");
        let path = Self { lab, inside, target: target.to_owned(), server };
        path.answers()?;
        Ok(path)
    }

    fn answers(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let said = self.run(&["ping", "-c", "1", "-W", "1", &self.target]);
            match said.text() {
                Ok(_) => return Ok(()),
                Err(text) => last = text,
            }
        }
        Err(last)
    }

    /// Bits a second of one TCP flow.
    pub fn flow(&self) -> f64 {
        self.iperf(&["-t", SECONDS, "-O", OMITTED], flow::rate)
    }

    /// Bits a second of so many TCP flows at once.
    pub fn flows(&self, count: &str) -> f64 {
        self.iperf(&["-P", count, "-t", SHORT, "-O", OMITTED], flow::rate)
    }

    /// Bytes that so many TCP flows at once bring over, all that are sent.
    pub fn bytes(&self, count: &str) -> f64 {
        self.iperf(&["-P", count, "-t", SECONDS], |text| {
            let value: serde_json::Value =
                serde_json::from_str(text).map_err(|error| error.to_string())?;
            value["end"]["sum_received"]["bytes"].as_f64().ok_or_else(|| text.to_owned())
        })
    }

    /// UDP packets of so many bytes that arrive in a second, when `rate` bits a second are sent; with 0
    /// as many as can be.
    pub fn packets(&self, bytes: &str, rate: &str) -> f64 {
        let size: f64 = bytes.parse().expect("it is a number");
        // Nothing omitted: iperf3 would count the losses of that time all the same.
        self.iperf(&["-u", "-l", bytes, "-b", rate, "-t", SHORT], |text| {
            let value: serde_json::Value =
                serde_json::from_str(text).map_err(|error| error.to_string())?;
            let sum = &value["end"]["sum_received"];
            let [bytes, seconds] =
                ["bytes", "seconds"].map(|name| sum[name].as_f64().ok_or_else(|| text.to_owned()));
            Ok(bytes? / size / seconds?)
        })
    }

    fn iperf<T>(&self, more: &[&str], read: impl Fn(&str) -> Result<T, String>) -> T {
        let mut argv = vec!["timeout", LIMIT, "iperf3", "-J", "-c", &self.target];
        argv.extend(more);
        eventually("iperf3 answers", PATIENCE, || read(&self.run(&argv).text()?))
    }

    /// The median round trip of pings with nothing else on the way.
    pub fn round_trip(&self) -> Duration {
        let argv = ["ping", "-n", "-c", PINGS, "-i", PING_PAUSE, &self.target];
        eventually("pings are answered", PATIENCE, || {
            let text = self.run(&argv).text()?;
            // "64 bytes from 10.81.1.2: icmp_seq=1 ttl=62 time=0.101 ms"
            let times = text.lines().filter_map(|line| {
                let (_, time) = line.split_once("time=")?;
                time.strip_suffix(" ms")?.parse::<f64>().ok()
            });
            let mut times: Vec<f64> = times.collect();
            times.sort_by(f64::total_cmp);
            let middle = times.get(times.len() / 2).ok_or(text)?;
            Ok(Duration::from_secs_f64(middle / 1e3))
        })
    }

    fn run(&self, argv: &[&str]) -> Output {
        Output::of(&mut command(self.lab, self.inside, 2, argv), argv)
    }
}

impl Drop for Path<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A command in the network namespace of the container on a host.
fn command(lab: &Lab, inside: [u32; 2], host: usize, argv: &[&str]) -> Command {
    let pid = inside[host - 1].to_string();
    let mut words = vec!["nsenter", "-t", &pid, "-n", "--"];
    words.extend(argv);
    lab.host(host).command(&words)
}
