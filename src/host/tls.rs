//! The files that TLS is served with: read at the start, on SIGHUP, and whenever one of them has changed.
//! Invariant: what they hold is judged as a whole before anybody is served with it; while it is wrong, what
//! was served before is served on, and the log says so once.

use crate::io::gateway::Gateway;
use crate::io::tls::Served;
use crate::io::tls::settings::{Clients, Oldest, Pair, Refused, Settings, Tickets};
use crate::observe::certificates::Certificates;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// No chain and no set of authorities is larger.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What an operator names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// At least one, the one for everybody first.
    pub pairs: Vec<PairFiles>,
    pub oldest: Oldest,
    pub clients: ClientFiles,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientFiles {
    Unknown,
    MayShow(PathBuf),
    MustShow(PathBuf),
}

impl TlsFiles {
    fn read(&self) -> Result<Settings, Refused> {
        let certificates = self.pairs.iter().map(|PairFiles { certificate, key }| {
            Ok(Pair {
                name: certificate.display().to_string().into(),
                certificate: read(certificate)?,
                key: read(key)?,
            })
        });
        let clients = match &self.clients {
            ClientFiles::Unknown => Clients::Unknown,
            ClientFiles::MayShow(authorities) => Clients::MayShow(read(authorities)?),
            ClientFiles::MustShow(authorities) => Clients::MustShow(read(authorities)?),
        };
        Ok(Settings { certificates: certificates.collect::<Result<_, _>>()?, oldest: self.oldest, clients })
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let of_pairs = self.pairs.iter().flat_map(|pair| [&*pair.certificate, &*pair.key]);
        let authorities = match &self.clients {
            ClientFiles::Unknown => None,
            ClientFiles::MayShow(authorities) | ClientFiles::MustShow(authorities) => Some(&**authorities),
        };
        of_pairs.chain(authorities)
    }

    /// What differs once one of the files is written to, replaced, or a link to it turned.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.paths().map(Stamp::of).collect()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Refused> {
    let refused = |why: String| Refused(format!("{} cannot be read: {why}", path.display()));
    let length = fs::metadata(path).map_err(|error| refused(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(refused(format!("it has {length} bytes, and no such file has more than {FILE_BYTES_MAX}")));
    }
    fs::read(path).map_err(|error| refused(error.to_string()))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let found = fs::metadata(path).ok()?;
        let changed = (found.mtime(), found.mtime_nsec());
        Some(Stamp { device: found.dev(), inode: found.ino(), bytes: found.len(), changed })
    }
}

/// Follows the files.
pub struct TlsKeeper {
    files: TlsFiles,
    stamps: Vec<Option<Stamp>>,
    settings: Settings,
    tickets: Tickets,
    certificates: Certificates,
}

impl TlsKeeper {
    /// What is served from the start. `certificates`: where it is written down.
    pub fn open(files: TlsFiles, certificates: &Certificates) -> Result<(TlsKeeper, Served), Refused> {
        let stamps = files.stamps();
        let settings = files.read()?;
        let mut tickets = Tickets::default();
        let served = settings.served(&mut tickets)?;
        certificates.known().expiries = Arc::clone(served.expiries());
        Ok((TlsKeeper { files, stamps, settings, tickets, certificates: certificates.clone() }, served))
    }

    /// What is to be served from now on, if anything else; `files`: those that are named from now on.
    fn look(&mut self, files: Option<TlsFiles>) -> Option<Served> {
        let is_asked = files.is_some();
        let files = files.unwrap_or_else(|| self.files.clone());
        let stamps = files.stamps();
        if !is_asked && stamps == self.stamps {
            return None;
        }
        // Once for each change, whatever comes of it.
        self.files = files;
        self.stamps = stamps;
        let read = self.files.read().and_then(|settings| match settings == self.settings {
            true => Ok(None),
            false => settings.served(&mut self.tickets).map(|served| Some((settings, served))),
        });
        let mut known = self.certificates.known();
        match read {
            Ok(None) => {
                known.is_stale = false;
                None
            }
            Ok(Some((settings, served))) => {
                known.is_stale = false;
                known.taken += 1;
                known.expiries = Arc::clone(served.expiries());
                self.settings = settings;
                Some(served)
            }
            Err(refused) => {
                known.is_stale = true;
                known.refused += 1;
                log::error!("TLS goes on with the certificates that it had: {refused}");
                None
            }
        }
    }

    /// Follows the files until the runtime ends; `orders`: others, which are named from now on.
    pub async fn keep(mut self, gateway: Arc<Gateway>, mut orders: tokio::sync::mpsc::UnboundedReceiver<TlsFiles>) {
        loop {
            let ordered = tokio::time::timeout(LOOK, orders.recv()).await;
            let Some(served) = self.look(ordered.ok().flatten()) else { continue };
            let names: Vec<&str> = served.expiries().iter().map(|expiry| &*expiry.name).collect();
            match gateway.set_tls(&served) {
                0 => log::info!("TLS is served with {} from now on", names.join(", ")),
                untold => log::error!("{untold} shards were too busy to take the certificates; send SIGHUP again"),
            }
        }
    }
}
