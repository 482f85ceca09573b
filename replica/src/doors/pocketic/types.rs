//! The JSON that the PocketIC server's REST interface speaks, as the `pocket-ic` crate 16.1 defines it in
//! `pocket_ic::common::rest`. Only what this server reads or writes is here.

use crate::subnet::Rejection;
use candid::Principal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes that travel as standard base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::prelude::*;
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::prelude::*;
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Base64).map_err(serde::de::Error::custom)
    }
}

impl From<&Principal> for Base64 {
    fn from(principal: &Principal) -> Self {
        Base64(principal.as_slice().to_vec())
    }
}

impl Base64 {
    /// The principal these bytes are; the error is a sentence for the client.
    pub fn to_principal(&self) -> Result<Principal, String> {
        Principal::try_from_slice(&self.0).map_err(|e| format!("{} is not a principal: {e}", hex::encode(&self.0)))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawTime {
    pub nanos_since_epoch: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawCanisterId {
    pub canister_id: Base64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawPrincipalId {
    pub principal_id: Base64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawSubnetId {
    pub subnet_id: Base64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawCycles {
    pub cycles: u128,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RawAddCycles {
    pub canister_id: Base64,
    pub amount: u128,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RawSetStableMemory {
    pub canister_id: Base64,
    pub blob_id: Base64,
}

#[derive(Clone, Debug, Serialize)]
pub struct RawStableMemory {
    pub blob: Base64,
}

/// Where a call is routed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RawEffectivePrincipal {
    None,
    SubnetId(Base64),
    CanisterId(Base64),
}

#[derive(Clone, Debug, Deserialize)]
pub struct RawCanisterCall {
    pub sender: Base64,
    pub canister_id: Base64,
    pub effective_principal: RawEffectivePrincipal,
    pub method: String,
    pub payload: Base64,
    pub sender_info: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawMessageId {
    pub effective_principal: RawEffectivePrincipal,
    pub message_id: Base64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RawIngressStatusArgs {
    pub raw_message_id: RawMessageId,
    pub raw_caller: Option<RawPrincipalId>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct RawTickConfigs {
    pub blockmakers: Option<serde_json::Value>,
}

/// A rejection with the names of its codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RejectResponse {
    pub reject_code: String,
    pub reject_message: String,
    pub error_code: String,
    /// The subnet agreed on it, as on the outcome of an update call.
    pub certified: bool,
}

impl RejectResponse {
    pub fn new(rejection: Rejection, certified: bool) -> Self {
        RejectResponse {
            reject_code: format!("{:?}", rejection.reject_code),
            reject_message: rejection.message,
            error_code: format!("{:?}", rejection.error_code),
            certified,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Topology {
    pub subnet_configs: BTreeMap<Principal, SubnetConfig>,
    pub default_effective_canister_id: RawCanisterId,
}

#[derive(Clone, Debug, Serialize)]
pub struct SubnetConfig {
    pub subnet_kind: &'static str,
    pub subnet_admins: Option<Vec<RawPrincipalId>>,
    pub cost_schedule: &'static str,
    pub subnet_seed: [u8; 32],
    pub instruction_config: &'static str,
    pub canister_ranges: Vec<CanisterIdRange>,
}

#[derive(Clone, Debug, Serialize)]
pub struct CanisterIdRange {
    pub start: RawCanisterId,
    pub end: RawCanisterId,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum HttpGatewayBackend {
    Replica(String),
    PocketIcInstance(usize),
}

#[derive(Clone, Debug, Deserialize)]
pub struct HttpGatewayConfig {
    pub ip_addr: Option<String>,
    pub port: Option<u16>,
    pub forward_to: HttpGatewayBackend,
    pub domains: Option<Vec<String>>,
    pub https_config: Option<serde_json::Value>,
    pub domain_custom_provider_local_file: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct InstanceHttpGatewayConfig {
    pub ip_addr: Option<String>,
    pub port: Option<u16>,
    pub domains: Option<Vec<String>>,
    pub https_config: Option<serde_json::Value>,
    pub domain_custom_provider_local_file: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct HttpGatewayInfo {
    pub instance_id: usize,
    pub port: u16,
}

#[derive(Clone, Debug, Serialize)]
pub struct HttpGatewayDetails {
    pub instance_id: usize,
    pub port: u16,
    pub forward_to: HttpGatewayBackend,
    pub domains: Option<Vec<String>>,
    pub https_config: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Serialize)]
pub enum CreateHttpGatewayResponse {
    Created(HttpGatewayInfo),
    Error { message: String },
}

#[derive(Clone, Debug, Serialize)]
pub enum CreateInstanceResponse {
    Created { instance_id: usize, topology: Topology, http_gateway_info: Option<HttpGatewayInfo> },
    Error { message: String },
}

#[derive(Clone, Debug, Serialize)]
pub struct StartedResponse {
    pub state_label: String,
    pub op_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subnet::{ErrorCode, RejectCode};

    #[test]
    fn principals_and_enums_travel_as_the_crate_writes_them() {
        let message: RawMessageId =
            serde_json::from_str(r#"{"effective_principal":{"CanisterId":"AAAAAAAAAAcBAQ=="},"message_id":"AQID"}"#)
                .unwrap();
        assert_eq!(message.message_id, Base64(vec![1, 2, 3]));
        let RawEffectivePrincipal::CanisterId(id) = &message.effective_principal else { panic!("{message:?}") };
        assert_eq!(id.to_principal().unwrap(), Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 7, 1, 1]));
        assert_eq!(serde_json::to_string(&RawEffectivePrincipal::None).unwrap(), r#""None""#);
        assert!(serde_json::from_str::<RawSubnetId>(r#"{"subnet_id":"not base64!"}"#).is_err());
        assert!(Base64(vec![0; 40]).to_principal().unwrap_err().contains("not a principal"));
    }

    #[test]
    fn rejections_carry_the_names_of_their_codes() {
        let rejection = Rejection {
            reject_code: RejectCode::CanisterError,
            error_code: ErrorCode::CanisterTrapped,
            message: "m".into(),
        };
        assert_eq!(
            serde_json::to_string(&RejectResponse::new(rejection, true)).unwrap(),
            r#"{"reject_code":"CanisterError","reject_message":"m","error_code":"CanisterTrapped","certified":true}"#
        );
    }
}
