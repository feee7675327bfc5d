//! What Tollgate's own client sends to Redis, read from `MONITOR`: so that whoever is compared with it calls the same
//! scripts with the same arguments.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// One call of a script.
pub struct Evalsha {
    pub sha: String,
    pub keys: Vec<Vec<u8>>,
    pub arguments: Vec<Vec<u8>>,
}

/// A connection that sees all commands.
pub struct Monitor(BufReader<TcpStream>);

impl Monitor {
    pub fn start(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).expect("the server runs");
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a bound");
        stream.write_all(b"MONITOR\r\n").expect("it listens");
        let mut monitor = Self(BufReader::new(stream));
        assert_eq!(monitor.line().trim(), "+OK");
        monitor
    }

    /// The next call of a script with so many keys and arguments.
    pub fn next(&mut self, keys: usize, arguments: usize) -> Evalsha {
        loop {
            let line = self.line();
            let Some(from) = line.find("] \"EVALSHA\"") else {
                continue;
            };
            let mut words = words(&line[from + 2..]);
            if words.len() == 3 + keys + arguments && words[2] == keys.to_string().as_bytes() {
                let arguments = words.split_off(3 + keys);
                let keys = words.split_off(3);
                let sha = String::from_utf8(words.remove(1)).expect("a hash is text");
                return Evalsha {
                    sha,
                    keys,
                    arguments,
                };
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the command is seen");
        line
    }
}

/// The words of a line of `MONITOR`, each in quotes with what is not text escaped.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes();
    while bytes.any(|byte| byte == b'"') {
        let mut word = Vec::new();
        loop {
            match bytes.next().expect("a quote is closed") {
                b'"' => break,
                b'\\' => word.push(match bytes.next().expect("an escape") {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    b'x' => {
                        let hex = [bytes.next(), bytes.next()].map(|digit| digit.expect("a digit"));
                        let hex = std::str::from_utf8(&hex).expect("digits").to_owned();
                        u8::from_str_radix(&hex, 16).expect("a byte in hexadecimal")
                    }
                    plain => plain,
                }),
                plain => word.push(plain),
            }
        }
        words.push(word);
    }
    words
}

/// The values that a packed argument has, one after the other.
pub fn unpacked(argument: &[u8]) -> Vec<Value> {
    let mut reader = argument;
    let mut values = Vec::new();
    while !reader.is_empty() {
        let mut one = rmp_serde::Deserializer::new(&mut reader);
        values.push(Value::deserialize(&mut one).expect("it is MessagePack"));
    }
    values
}
