//! What a client may ask of a new instance, checked: this server makes instances of one application subnet.

use super::types::{InstanceHttpGatewayConfig, RawTime};
use serde::Deserialize;
use std::path::PathBuf;

/// Time of a new instance: 6 May 2021, 19:17:10 UTC, in nanoseconds since 1970. Fixed, so that tests are reproducible.
pub const DEFAULT_TIME_NS: u64 = 1_620_328_630_000_000_000;

/// The body of a request for an instance, as far as this server can mind it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct InstanceConfig {
    subnet_config_set: SubnetConfigSet,
    pub http_gateway_config: Option<InstanceHttpGatewayConfig>,
    state_dir: Option<PathBuf>,
    icp_config: Option<IcpConfig>,
    bitcoind_addr: Option<Vec<String>>,
    dogecoind_addr: Option<Vec<String>>,
    icp_features: Option<serde_json::Map<String, serde_json::Value>>,
    initial_time: Option<InitialTime>,
    mainnet_nns_subnet_id: Option<bool>,
    disable_ingress_validation: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SubnetConfigSet {
    nns: Option<SubnetSpec>,
    sns: Option<SubnetSpec>,
    ii: Option<SubnetSpec>,
    fiduciary: Option<SubnetSpec>,
    bitcoin: Option<SubnetSpec>,
    test_threshold_keys: Option<SubnetSpec>,
    system: Vec<SubnetSpec>,
    application: Vec<SubnetSpec>,
    cloud_engine: Vec<SubnetSpec>,
    verified_application: Vec<SubnetSpec>,
}

#[derive(Clone, Debug, Deserialize)]
struct SubnetSpec {
    state_config: serde_json::Value,
    instruction_config: InstructionConfig,
    subnet_admins: Option<serde_json::Value>,
    #[serde(default)]
    cost_schedule: CostSchedule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum InstructionConfig {
    Production,
    Benchmarking,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum CostSchedule {
    #[default]
    Normal,
    Free,
}

/// Flags of the network's configuration; `Some` of anything is a wish to differ from its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct IcpConfig {
    beta_features: Option<Flag>,
    function_name_length_limits: Option<Flag>,
    canister_execution_rate_limiting: Option<Flag>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Flag {
    Disabled,
    Enabled,
}

#[derive(Clone, Debug, Deserialize)]
enum InitialTime {
    Timestamp(RawTime),
    AutoProgress(AutoProgressConfig),
}

/// How to make progress automatically.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AutoProgressConfig {
    /// Taken, but nothing is delayed: rounds are executed as fast as there is work.
    #[serde(rename = "artificial_delay_ms")]
    pub _artificial_delay_ms: Option<u64>,
}

/// What a checked configuration comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub start_time_ns: u64,
    pub auto_progress: bool,
    pub benchmark: bool,
    /// The topology shows an NNS.
    pub with_nns: bool,
}

impl InstanceConfig {
    /// The plan, or a sentence that says what this server can't do.
    pub fn plan(&self) -> Result<Plan, String> {
        let subnets = &self.subnet_config_set;
        let others = [
            ("SNS", subnets.sns.is_some()),
            ("II", subnets.ii.is_some()),
            ("fiduciary", subnets.fiduciary.is_some()),
            ("Bitcoin", subnets.bitcoin.is_some()),
            ("threshold key", subnets.test_threshold_keys.is_some()),
            ("system", !subnets.system.is_empty()),
            ("cloud engine", !subnets.cloud_engine.is_empty()),
        ];
        if let Some((kind, _)) = others.iter().find(|(_, wanted)| *wanted) {
            return Err(format!("this server has no {kind} subnet: an instance is one application subnet"));
        }
        let mut applications = subnets.application.iter().chain(&subnets.verified_application);
        let (Some(application), None) = (applications.next(), applications.next()) else {
            let wanted = subnets.application.len() + subnets.verified_application.len();
            return Err(format!("{wanted} application subnets are wanted; this server makes exactly one an instance"));
        };
        for spec in subnets.nns.iter().chain([application]) {
            if spec.state_config != "New" {
                return Err("subnet state can't be loaded from a path: this server keeps no state directories".into());
            }
            if spec.subnet_admins.is_some() || spec.cost_schedule != CostSchedule::Normal {
                return Err("subnet admins and the free cost schedule are not supported".into());
            }
        }
        let unsupported = [
            ("state_dir", self.state_dir.is_some()),
            ("bitcoind_addr", self.bitcoind_addr.as_ref().is_some_and(|list| !list.is_empty())),
            ("dogecoind_addr", self.dogecoind_addr.as_ref().is_some_and(|list| !list.is_empty())),
            (
                "icp_features",
                self.icp_features.as_ref().is_some_and(|features| features.values().any(|value| !value.is_null())),
            ),
            ("icp_config", self.icp_config.as_ref().is_some_and(|config| *config != IcpConfig::default())),
            ("mainnet_nns_subnet_id", self.mainnet_nns_subnet_id == Some(true)),
            ("disable_ingress_validation", self.disable_ingress_validation == Some(true)),
        ];
        if let Some((name, _)) = unsupported.iter().find(|(_, wanted)| *wanted) {
            return Err(format!("{name} is not supported by this server"));
        }
        let (start_time_ns, auto_progress) = match &self.initial_time {
            None => (DEFAULT_TIME_NS, false),
            Some(InitialTime::AutoProgress(AutoProgressConfig { .. })) => (DEFAULT_TIME_NS, true),
            Some(InitialTime::Timestamp(time)) if time.nanos_since_epoch >= DEFAULT_TIME_NS => {
                (time.nanos_since_epoch, false)
            }
            Some(InitialTime::Timestamp(time)) => {
                let given = time.nanos_since_epoch;
                return Err(format!("the initial timestamp {given} must be no earlier than {DEFAULT_TIME_NS} (ns)"));
            }
        };
        let benchmark = application.instruction_config == InstructionConfig::Benchmarking;
        Ok(Plan { start_time_ns, auto_progress, benchmark, with_nns: subnets.nns.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = r#"{"state_config":"New","instruction_config":"Production","subnet_admins":null}"#;

    fn plan(subnets: &str, rest: &str) -> Result<Plan, String> {
        let json = format!(r#"{{"subnet_config_set":{subnets}{rest}}}"#);
        serde_json::from_str::<InstanceConfig>(&json).unwrap().plan()
    }

    #[test]
    fn one_application_subnet_with_or_without_an_nns() {
        let plain = Plan { start_time_ns: DEFAULT_TIME_NS, auto_progress: false, benchmark: false, with_nns: false };
        let application = format!(r#"{{"application":[{NEW}]}}"#);
        assert_eq!(plan(&application, ""), Ok(plain));
        let both = format!(r#"{{"application":[{NEW}],"nns":{NEW}}}"#);
        assert_eq!(plan(&both, ""), Ok(Plan { with_nns: true, ..plain }));
        let benchmark = format!(r#"{{"application":[{}]}}"#, NEW.replace("Production", "Benchmarking"));
        assert_eq!(plan(&benchmark, ""), Ok(Plan { benchmark: true, ..plain }));
        let progress = r#","initial_time":{"AutoProgress":{"artificial_delay_ms":null}}"#;
        assert_eq!(plan(&application, progress), Ok(Plan { auto_progress: true, ..plain }));
        let time = r#","initial_time":{"Timestamp":{"nanos_since_epoch":1700000000000000000}}"#;
        assert_eq!(plan(&application, time), Ok(Plan { start_time_ns: 1_700_000_000_000_000_000, ..plain }));
        let crate_default = r#","icp_features":{"registry":null},"icp_config":{"beta_features":null}"#;
        assert_eq!(plan(&application, crate_default), Ok(plain));
    }

    #[test]
    fn what_the_server_cannot_do_is_said() {
        let application = format!(r#"{{"application":[{NEW}]}}"#);
        let cases = [
            ("{}".to_string(), "", "0 application subnets"),
            (format!(r#"{{"application":[{NEW},{NEW}]}}"#), "", "2 application subnets"),
            (format!(r#"{{"application":[{NEW}],"sns":{NEW}}}"#), "", "no SNS subnet"),
            (format!(r#"{{"application":[{NEW}],"system":[{NEW}]}}"#), "", "no system subnet"),
            (
                format!(r#"{{"application":[{}]}}"#, NEW.replace(r#""New""#, r#"{"FromPath":"/x"}"#)),
                "",
                "loaded from a path",
            ),
            (application.clone(), r#","state_dir":"/tmp/x""#, "state_dir"),
            (application.clone(), r#","icp_features":{"registry":"DefaultConfig"}"#, "icp_features"),
            (application.clone(), r#","icp_config":{"beta_features":"Enabled"}"#, "icp_config"),
            (application, r#","initial_time":{"Timestamp":{"nanos_since_epoch":5}}"#, "must be no earlier"),
        ];
        for (subnets, rest, expected) in cases {
            let error = plan(&subnets, rest).unwrap_err();
            assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        }
    }
}
