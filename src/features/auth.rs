//! `auth:refresh`: a new token for a connection that stays.
//! Promise: a connection that refreshes in time is never closed for its token, and none becomes
//! another user's.

use crate::admission::gate::Admitted;
use crate::admission::rights::{Rate, Right};
use crate::features::data;
use crate::kernel::feature::{Answer, ConnRequest, Declaration, Declared, Feature, Home};
use crate::kernel::scope::ConnScope;
use serde::Deserialize;
use serde_json::json;

const DECLARATION: Declaration = Declaration {
    name: "auth",
    // A signature costs as much as a fan-out to some tens of members.
    requests: &[Declared { event: "auth:refresh", home: Home::Conn, needs: Right::None, rate: Rate::Heavy }],
};

pub struct Auth;

impl Feature for Auth {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn on_conn_request(&mut self, scope: &mut ConnScope<'_>, request: &Admitted<ConnRequest<'_>>) -> Answer {
        #[derive(Deserialize)]
        struct Data {
            token: String,
        }
        let Data { token } = data::read(request.data)?;
        let end_unix_s = scope.refresh(&token)?;
        Ok(data::write(&json!({ "expires_at": end_unix_s.map(|end| end * 1_000) })))
    }
}
