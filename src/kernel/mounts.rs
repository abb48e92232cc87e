//! Paths at which Engine.IO is spoken, and what is served there: the namespaces of Socket.IO, of the gateway
//! or of an application, or an application's messages as they are.

use crate::admission::rights::Rate;
use crate::base::limits::{MOUNTS_MAX, NAMESPACE_BYTES_MAX, NAMESPACES_MAX};
use crate::kernel::endpoint::{Endpoint, Make};
use crate::kernel::namespace::{MakeNamespace, Namespace};
use crate::wire::alias::Aliases;
use crate::wire::socketio::{Form, Forms, Style};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How Engine.IO is spoken at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSettings {
    /// Between two pings of the server: told to clients, and never later.
    pub ping_interval: Duration,
    /// For the answer to a ping: told to clients.
    pub ping_timeout: Duration,
    /// From a WebSocket's probe to its taking over from polling.
    pub upgrade_timeout: Duration,
    /// How long somebody may stay without being in a namespace.
    pub connect_timeout: Duration,
    /// One packet, or one payload of several, bytes: told to clients as `maxPayload`.
    pub payload_bytes: usize,
    /// Binary attachments of one packet of a client.
    pub attachments_max: usize,
    /// Whether a WebSocket's offer of permessage-deflate is taken.
    pub compression: bool,
    /// The cookie in which a client is told its session; `None`: in none.
    pub cookie: Option<Box<str>>,
    /// What a message to an application costs of what a connection may ask for (`limits.conn_per_s`); who
    /// sends on without any left is closed with 4429. `None`: nothing. The gateway's own events cost what each
    /// declares.
    pub rate: Option<Rate>,
}

impl Default for EngineSettings {
    fn default() -> EngineSettings {
        EngineSettings {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            payload_bytes: 1_000_000,
            attachments_max: crate::base::limits::ATTACHMENTS_MAX,
            compression: false,
            cookie: None,
            rate: Some(Rate::Light),
        }
    }
}

/// Namespaces of Socket.IO.
#[derive(Clone, Default)]
pub struct SocketIo {
    namespaces: Vec<(Box<str>, ServedBy)>,
    aliases: Arc<Aliases>,
}

#[derive(Clone)]
enum ServedBy {
    Features,
    Application(MakeNamespace),
}

impl SocketIo {
    pub fn new() -> SocketIo {
        SocketIo::default()
    }

    /// Serves the namespace `name`, `/` or `/` and a word; `make` is called once for each shard. At most ten
    /// over all paths.
    pub fn namespace<N: Namespace + 'static>(
        mut self,
        name: &str,
        make: impl Fn() -> N + Send + Sync + 'static,
    ) -> SocketIo {
        self.namespaces.push((name.into(), ServedBy::Application(Arc::new(move || Box::new(make())))));
        self
    }

    /// The gateway's own events under `names`, for clients who spell them as `aliases` say.
    pub fn of_gateway(names: impl IntoIterator<Item = Box<str>>, aliases: Arc<Aliases>) -> SocketIo {
        SocketIo { namespaces: names.into_iter().map(|name| (name, ServedBy::Features)).collect(), aliases }
    }
}

#[derive(Clone)]
enum Serves {
    Messages(Make),
    Namespaces(SocketIo),
}

/// All paths of a process.
#[derive(Clone, Default)]
pub struct Mounts(Vec<Declared>);

#[derive(Clone)]
struct Declared {
    path: &'static str,
    settings: Arc<EngineSettings>,
    serves: Serves,
}

/// Where the gateway speaks Socket.IO, unless an application does.
pub const SOCKET_IO_PATH: &str = "/socket.io/";

impl Mounts {
    pub fn engine(&mut self, path: &'static str, settings: EngineSettings, make: Make) {
        self.0.push(Declared { path, settings: Arc::new(settings), serves: Serves::Messages(make) });
    }

    pub fn socket_io(&mut self, path: &'static str, settings: EngineSettings, served: SocketIo) {
        self.0.push(Declared { path, settings: Arc::new(settings), serves: Serves::Namespaces(served) });
    }

    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|mount| mount.path)
    }

    /// `Err`: what cannot be served, and why.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() > MOUNTS_MAX {
            return Err(format!("Engine.IO is declared at {} paths; {MOUNTS_MAX} is the most", self.0.len()));
        }
        let names = || self.0.iter().flat_map(|mount| mount.namespaces().iter().map(|(name, _)| name));
        let namespaces = names().count();
        if namespaces > NAMESPACES_MAX {
            return Err(format!("{namespaces} namespaces are declared; {NAMESPACES_MAX} is the most, over all paths"));
        }
        for (nth, mount) in self.0.iter().enumerate() {
            let path = mount.path;
            if path.len() < 3 || !path.starts_with('/') || !path.ends_with('/') || path.contains(['?', '#', ' ']) {
                return Err(format!("a path of Engine.IO begins and ends with / and has no query; {path:?} is none"));
            }
            if self.0[..nth].iter().any(|other| other.path == path) {
                return Err(format!("Engine.IO is declared twice at {path}"));
            }
            mount.settings.check(path)?;
            let namespaces = mount.namespaces();
            for (nth, (name, _)) in namespaces.iter().enumerate() {
                if !is_namespace(name) {
                    return Err(format!(
                        "a namespace is / or / and a word of at most {NAMESPACE_BYTES_MAX} bytes in all, \
                         without comma, ? and control characters; {name:?} is none"
                    ));
                }
                if namespaces[..nth].iter().any(|(other, _)| other == name) {
                    return Err(format!("the namespace {name} is declared twice at {path}"));
                }
            }
        }
        Ok(())
    }

    /// How pushes are written for each namespace.
    pub fn forms(&self) -> Forms {
        let forms = self.0.iter().flat_map(|mount| {
            mount.namespaces().iter().map(|(name, by)| {
                let (style, aliases) = match (by, &mount.serves) {
                    (ServedBy::Features, Serves::Namespaces(served)) => (Style::Gateway, served.aliases.clone()),
                    _ => (Style::Application, Arc::default()),
                };
                Form { namespace: name.clone(), style, aliases }
            })
        });
        Forms::new(forms.collect())
    }

    /// The instances of one shard.
    pub fn instances(&self) -> Served {
        let mut served = Served::default();
        for mount in &self.0 {
            let first = served.namespaces.len();
            let by = match &mount.serves {
                Serves::Messages(make) => By::Messages(make()),
                Serves::Namespaces(declared) => {
                    served.namespaces.extend(declared.namespaces.iter().map(|(name, by)| ServedNamespace {
                        name: name.clone(),
                        tenant: format!("{}#{name}", mount.path).into(),
                        aliases: Rc::new(Aliases::clone(&declared.aliases)),
                        application: match by {
                            ServedBy::Features => None,
                            ServedBy::Application(make) => Some(make()),
                        },
                    }));
                    By::Namespaces { first, end: served.namespaces.len() }
                }
            };
            served.mounts.push(ServedMount { path: mount.path, settings: mount.settings.clone(), by });
        }
        served
    }
}

impl Declared {
    fn namespaces(&self) -> &[(Box<str>, ServedBy)] {
        match &self.serves {
            Serves::Messages(_) => &[],
            Serves::Namespaces(served) => &served.namespaces,
        }
    }
}

impl EngineSettings {
    fn check(&self, path: &str) -> Result<(), String> {
        const LEAST: Duration = Duration::from_millis(50);
        let EngineSettings { ping_interval, ping_timeout, payload_bytes, .. } = self;
        if *ping_interval < LEAST || *ping_timeout < LEAST {
            return Err(format!("at {path}: pings are 50 ms apart at least, and answered within 50 ms at least"));
        }
        if !(1_024..=1 << 24).contains(payload_bytes) {
            return Err(format!("at {path}: a payload may have 1024 to 16777216 bytes, not {payload_bytes}"));
        }
        Ok(())
    }
}

/// Whether a namespace may have this name.
pub fn is_namespace(name: &str) -> bool {
    let forbidden = |char: char| char.is_control() || matches!(char, ',' | '?');
    name.starts_with('/') && name.len() <= NAMESPACE_BYTES_MAX && !name.contains(forbidden)
}

/// Whether rooms of this tenant are an application's.
pub fn is_of_application(tenant: &str) -> bool {
    // A token's tenant has neither.
    tenant.starts_with('/')
}

/// The paths on one shard, and all their namespaces.
#[derive(Default)]
pub struct Served {
    pub mounts: Vec<ServedMount>,
    pub namespaces: Vec<ServedNamespace>,
}

pub struct ServedMount {
    pub path: &'static str,
    pub settings: Arc<EngineSettings>,
    pub by: By,
}

pub enum By {
    Messages(Box<dyn Endpoint>),
    /// Those of [`Served::namespaces`].
    Namespaces {
        first: usize,
        end: usize,
    },
}

pub struct ServedNamespace {
    pub name: Box<str>,
    /// Whose an application's rooms are: no token can name it.
    pub tenant: Arc<str>,
    /// The shard's own: they are counted with each event, which shards must not do in the same place.
    pub aliases: Rc<Aliases>,
    /// `None`: the gateway's features answer.
    pub application: Option<Box<dyn Namespace>>,
}
