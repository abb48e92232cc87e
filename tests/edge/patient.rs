//! A socket of the tests that goes on where a signal, or a process that was frozen, interrupts it: reads with a
//! time-out are not taken up again by the system (signal(7)).

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

pub struct Patient(TcpStream);

impl Patient {
    /// `patience`: how long a read waits.
    pub fn connect(address: SocketAddr, patience: Duration) -> Patient {
        Patient::of(TcpStream::connect(address).unwrap(), patience)
    }

    pub fn of(stream: TcpStream, patience: Duration) -> Patient {
        stream.set_read_timeout(Some(patience)).unwrap();
        Patient(stream)
    }
}

impl Deref for Patient {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        again(|| self.0.read(into))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        again(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}

fn again(mut attempt: impl FnMut() -> Result<usize>) -> Result<usize> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
