//! `weft service ...`

use tonic::Code;
use weft_proto::v1;

use super::{
    Context,
    converge::{self, Goal},
    filter::Filters,
    inspect, logs, network, service_spec, style,
};
use crate::{
    args::{
        ListArgs,
        service::{
            ServiceCommand, ServiceCreateArgs, ServiceInspectArgs, ServicePsArgs,
            ServiceRollbackArgs, ServiceScaleArgs, ServiceUpdateArgs, WaitArgs,
        },
    },
    client::{Client, request_id},
    docker::{self, Trunc, task::Resolve},
    error::{CliError, what},
    output::list,
};

/// Runs one of the commands on services.
pub async fn run(
    client: &Client,
    command: ServiceCommand,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    match command {
        ServiceCommand::Create(args) => create(client, &args, context).await,
        ServiceCommand::Ls(args) => ls(client, &args, context).await,
        ServiceCommand::Ps(args) => ps(client, &args, context).await,
        ServiceCommand::Inspect(args) => inspect_services(client, &args, context).await,
        ServiceCommand::Update(args) => update(client, &args, context).await,
        ServiceCommand::Scale(args) => scale(client, &args, context).await,
        ServiceCommand::Rollback(args) => rollback(client, &args, context).await,
        ServiceCommand::Logs(args) => logs::service(client, &args, context).await,
        ServiceCommand::Rm(args) => {
            context
                .each(&args.services, |name| async move {
                    remove(client, name).await?;
                    Ok(name.to_owned())
                })
                .await
        }
    }
}

/// A name for a service without one.
fn random_name() -> String {
    const LEFT: [&str; 16] = [
        "amber", "brave", "calm", "dry", "early", "fair", "glad", "high", "idle", "keen", "light",
        "mild", "neat", "old", "quiet", "warm",
    ];
    const RIGHT: [&str; 16] = [
        "bobbin", "braid", "cloth", "cotton", "fibre", "fleece", "heddle", "hemp", "knot", "lace",
        "linen", "loom", "reed", "silk", "thread", "wool",
    ];
    let random = rand::random::<u32>();
    let (left, right) = (LEFT[random as usize % 16], RIGHT[random as usize / 16 % 16]);
    format!("{left}_{right}_{:04x}", random >> 16)
}

async fn create(
    client: &Client,
    args: &ServiceCreateArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let spec = service_spec::create(args, &random_name())?;
    let what = what("service create", &spec.name);
    let request = v1::CreateServiceRequest { spec: Some(spec), request_id: request_id() };
    let answer = client
        .ask(&what, || {
            let (mut stub, request) = (client.services(), request.clone());
            async move { stub.create(request).await }
        })
        .await?;
    let service = answer.service.unwrap_or_default();
    context.line(&service.id)?;
    settle(client, service, None, Goal::Converge, args.wait, context).await
}

/// Waits until the tasks run, unless the user does not want to.
async fn settle(
    client: &Client,
    service: v1::Service,
    before: Option<&v1::Service>,
    goal: Goal,
    wait: WaitArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if wait.detach {
        return Ok(());
    }
    // The lines before must be out before the progress begins.
    context.out.flush()?;
    let target = converge::Target::new(service, before, goal);
    converge::wait(client, target, wait.quiet, context).await
}

async fn ls(client: &Client, args: &ListArgs, context: &mut Context<'_>) -> Result<(), CliError> {
    let filters = Filters::new(&args.filters, &["id", "name", "mode", "label"])?;
    let mut services = client
        .ask("service ls", || {
            let mut stub = client.services();
            async move { stub.list(v1::ListServicesRequest {}).await }
        })
        .await?
        .services;
    services.retain(|service| {
        let spec = service.spec.clone().unwrap_or_default();
        filters.part_of("name", &spec.name)
            && filters.prefix_of("id", &service.id)
            && filters.word("mode", docker::service::mode(&spec))
            && filters.labels("label", &spec.labels)
    });
    services.sort_by_key(|service| service.spec.as_ref().map(|spec| spec.name.clone()));
    let trunc = Trunc::unless(args.no_trunc);
    let rows: Vec<_> =
        services.iter().map(|service| docker::service::row(service, trunc)).collect();
    list::print(docker::service::COLUMNS, &rows, style(args), context.out)
}

/// Tasks that a request selects.
pub async fn tasks(
    client: &Client,
    what: &str,
    request: v1::ListTasksRequest,
) -> Result<Vec<v1::Task>, CliError> {
    let answer = client
        .ask(what, || {
            let (mut stub, request) = (client.tasks(), request.clone());
            async move { stub.list(request).await }
        })
        .await?;
    Ok(answer.tasks)
}

async fn ps(
    client: &Client,
    args: &ServicePsArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let (mut all, mut failed) = (Vec::new(), None);
    for name in &args.services {
        let request = v1::ListTasksRequest { service: name.clone(), node: String::new() };
        match tasks(client, &what("service ps", name), request).await {
            Ok(tasks) => all.extend(tasks),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    CliError::report(&earlier, context.err);
                }
            }
        }
    }
    if failed.is_none() || !all.is_empty() {
        print_tasks(all, &args.list, Resolve::unless(args.no_resolve), context)?;
    }
    failed.map_or(Ok(()), Err)
}

/// Prints a list of tasks.
pub fn print_tasks(
    mut tasks: Vec<v1::Task>,
    args: &ListArgs,
    resolve: Resolve,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let filters = Filters::new(&args.filters, &["id", "name", "node", "desired-state"])?;
    tasks.retain(|task| {
        filters.prefix_of("id", &task.id)
            && filters.part_of("name", &task.name)
            && filters
                .any("node", |node| task.node_hostname == node || task.node_id.starts_with(node))
            && filters.word("desired-state", docker::task::desired(task.desired_state()))
    });
    docker::task::sort(&mut tasks);
    let trunc = Trunc::unless(args.no_trunc);
    let rows = docker::task::rows(&tasks, (context.now)(), trunc, resolve);
    list::print(docker::task::COLUMNS, &rows, style(args), context.out)
}

/// One service.
async fn get(client: &Client, command: &str, name: &str) -> Result<v1::Service, CliError> {
    let answer = client
        .ask(&what(command, name), || {
            let request = v1::GetServiceRequest { service: name.to_owned() };
            let mut stub = client.services();
            async move { stub.get(request).await }
        })
        .await?;
    Ok(answer.service.unwrap_or_default())
}

async fn inspect_services(
    client: &Client,
    args: &ServiceInspectArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if args.pretty {
        for name in &args.services {
            let service = get(client, "service inspect", name).await?;
            context.out.write_all(docker::service::pretty(&service).as_bytes())?;
        }
        return Ok(());
    }
    inspect::print(&args.services, args.format.as_deref(), context, async |name| {
        Ok(docker::service::inspect(&get(client, "service inspect", name).await?))
    })
    .await
}

/// How often a change is made again on the newest spec when somebody else was faster.
const MAX_CONFLICTS: usize = 5;

/// Reads a service, changes its spec and writes it back; again, if somebody else wrote in between.
/// Gives the service before and after.
async fn change(
    client: &Client,
    command: &str,
    name: &str,
    force: bool,
    change: impl Fn(&mut v1::ServiceSpec) -> Result<(), CliError>,
) -> Result<(v1::Service, v1::Service), CliError> {
    let mut conflicts = 0;
    loop {
        let before = get(client, command, name).await?;
        let mut spec = before.spec.clone().unwrap_or_default();
        change(&mut spec)?;
        let request = v1::UpdateServiceRequest {
            service: before.id.clone(),
            version: before.meta.as_ref().map_or(0, |meta| meta.version),
            spec: Some(spec),
            force,
            request_id: request_id(),
        };
        let result = client
            .try_ask(|| {
                let (mut stub, request) = (client.services(), request.clone());
                async move { stub.update(request).await }
            })
            .await;
        match result {
            Ok(answer) => return Ok((before, answer.service.unwrap_or_default())),
            Err(status) if status.code() == Code::Aborted && conflicts < MAX_CONFLICTS => {
                conflicts += 1;
            }
            Err(status) => return Err(client.refused(&what(command, name), &status)),
        }
    }
}

async fn update(
    client: &Client,
    args: &ServiceUpdateArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    if args.rollback {
        let args = ServiceRollbackArgs { service: args.service.clone(), wait: args.wait };
        return rollback(client, &args, context).await;
    }
    let names = if args.network_rm.is_empty() && args.network_add.is_empty() {
        std::collections::HashMap::new()
    } else {
        network::names(client).await
    };
    let id_of =
        |name: &str| names.iter().find(|(_, known)| *known == name).map(|(id, _)| id.clone());
    let (before, after) = change(client, "service update", &args.service, args.force, |spec| {
        service_spec::update(spec, args, id_of)
    })
    .await?;
    context.line(&args.service)?;
    settle(client, after, Some(&before), Goal::Converge, args.wait, context).await
}

async fn scale(
    client: &Client,
    args: &ServiceScaleArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let mut scaled = Vec::new();
    let mut failed = None;
    for (name, replicas) in &args.scales {
        let result = change(client, "service scale", name, false, |spec| {
            service_spec::scale(spec, *replicas)
        })
        .await;
        match result {
            Ok(pair) => {
                context.line(&format!("{name} scaled to {replicas}"))?;
                scaled.push(pair);
            }
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    CliError::report(&earlier, context.err);
                }
            }
        }
    }
    for (before, after) in scaled {
        settle(client, after, Some(&before), Goal::Converge, args.wait, context).await?;
    }
    failed.map_or(Ok(()), Err)
}

async fn rollback(
    client: &Client,
    args: &ServiceRollbackArgs,
    context: &mut Context<'_>,
) -> Result<(), CliError> {
    let before = get(client, "service rollback", &args.service).await?;
    let request =
        v1::RollbackServiceRequest { service: before.id.clone(), request_id: request_id() };
    let answer = client
        .ask(&what("service rollback", &args.service), || {
            let (mut stub, request) = (client.services(), request.clone());
            async move { stub.rollback(request).await }
        })
        .await?;
    context.line(&args.service)?;
    let after = answer.service.unwrap_or_default();
    settle(client, after, Some(&before), Goal::Rollback, args.wait, context).await
}

async fn remove(client: &Client, name: &str) -> Result<(), CliError> {
    let request = v1::RemoveServiceRequest { service: name.to_owned(), request_id: request_id() };
    client
        .ask(&what("service rm", name), || {
            let (mut stub, request) = (client.services(), request.clone());
            async move { stub.remove(request).await }
        })
        .await?;
    Ok(())
}
