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
    /// Whether somebody could be served with what they hold now.
    pub fn judge(&self) -> Result<(), Refused> {
        self.read()?.served(&mut Tickets::default()).map(drop)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tls::sample::Authority;
    use std::os::unix::fs::symlink;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ringroom-tls-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        /// A certificate of its own and the key, in one file each.
        fn issue(&self, name: &str) -> PairFiles {
            let issued = Authority::shared().issue(&["chat.example"]);
            let pair =
                PairFiles { certificate: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
            fs::write(&pair.certificate, issued.certificate).unwrap();
            fs::write(&pair.key, issued.key).unwrap();
            pair
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn files(pair: PairFiles) -> TlsFiles {
        TlsFiles { pairs: vec![pair], oldest: Oldest::Tls12, clients: ClientFiles::Unknown }
    }

    #[test]
    fn a_change_of_files_is_taken_once_and_a_bad_one_leaves_what_was() {
        let folder = Folder::new("change");
        let pair = folder.issue("one");
        let certificates = Certificates::default();
        let (mut keeper, _) = TlsKeeper::open(files(pair.clone()), &certificates).unwrap();
        let counted = || {
            let known = certificates.known();
            (known.taken, known.refused, known.is_stale)
        };
        assert!(keeper.look(None).is_none(), "nothing has changed");
        folder.issue("one");
        assert!(keeper.look(None).is_some() && keeper.look(None).is_none());
        assert_eq!(counted(), (1, 0, false));
        let good = fs::read(&pair.key).unwrap();
        fs::write(&pair.key, b"no key at all").unwrap();
        assert!(keeper.look(None).is_none() && keeper.look(None).is_none());
        assert_eq!(counted(), (1, 1, true), "said once");
        fs::remove_file(&pair.key).unwrap();
        assert!(keeper.look(None).is_none());
        assert_eq!(counted(), (1, 2, true));
        fs::write(&pair.key, &good).unwrap();
        assert!(keeper.look(None).is_none(), "it is what is served");
        assert_eq!(counted(), (1, 2, false));
        // Asked for, though nothing has changed.
        assert!(keeper.look(Some(files(pair))).is_none());
        assert_eq!(counted(), (1, 2, false));
    }

    #[test]
    fn a_link_that_is_turned_is_a_change() {
        let folder = Folder::new("link");
        let (one, other) = (folder.issue("one"), folder.issue("other"));
        let live = PairFiles { certificate: folder.path("live.pem"), key: folder.path("live.key") };
        let turn = |to: &PairFiles| {
            for (link, to) in [(&live.certificate, &to.certificate), (&live.key, &to.key)] {
                let new = folder.path("new");
                symlink(to, &new).unwrap();
                fs::rename(&new, link).unwrap();
            }
        };
        turn(&one);
        let certificates = Certificates::default();
        let (mut keeper, _) = TlsKeeper::open(files(live.clone()), &certificates).unwrap();
        turn(&other);
        let served = keeper.look(None).expect("another certificate");
        assert_eq!(&*served.expiries()[0].name, live.certificate.display().to_string());
    }

    #[test]
    fn other_files_are_followed_from_then_on_good_or_not() {
        let folder = Folder::new("other");
        let (one, other) = (folder.issue("one"), folder.issue("other"));
        let certificates = Certificates::default();
        let (mut keeper, _) = TlsKeeper::open(files(one), &certificates).unwrap();
        let bad = PairFiles { key: folder.path("none"), ..other.clone() };
        assert!(keeper.look(Some(files(bad.clone()))).is_none() && certificates.known().is_stale);
        fs::copy(&other.key, &bad.key).unwrap();
        assert!(keeper.look(None).is_some() && !certificates.known().is_stale);
    }

    #[test]
    fn files_that_cannot_be_served_are_refused_at_the_start() {
        let folder = Folder::new("start");
        let (one, other) = (folder.issue("one"), folder.issue("other"));
        let refused = |files| match TlsKeeper::open(files, &Certificates::default()) {
            Ok(_) => panic!("they are served"),
            Err(refused) => refused.to_string(),
        };
        let mixed = refused(files(PairFiles { key: other.key, ..one.clone() }));
        assert!(mixed.contains("is not the key of its certificate"), "{mixed}");
        let missing = refused(files(PairFiles { certificate: folder.path("none.pem"), ..one.clone() }));
        assert!(missing.contains("none.pem cannot be read: No such file"), "{missing}");
        let clients = ClientFiles::MustShow(folder.path("none.pem"));
        let missing = refused(TlsFiles { clients, ..files(one.clone()) });
        assert!(missing.contains("none.pem cannot be read"), "{missing}");
        let huge = fs::File::create(folder.path("huge.pem")).unwrap();
        huge.set_len(FILE_BYTES_MAX + 1).unwrap();
        let large = refused(files(PairFiles { certificate: folder.path("huge.pem"), ..one }));
        assert!(large.contains("no such file has more"), "{large}");
    }
}
