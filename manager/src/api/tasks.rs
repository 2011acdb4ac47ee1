//! Tasks.

use tonic::{Request, Response, Status};
use weft_proto::{
    convert::task::task as to_wire,
    v1::{
        GetTaskRequest, GetTaskResponse, ListTasksRequest, ListTasksResponse,
        task_service_server::TaskService,
    },
};

use super::{Api, origin_of, resolve};

#[tonic::async_trait]
impl TaskService for Api {
    async fn list(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let asked = origin_of(&request)?.asked;
        let state = self.manager()?.current().await?;
        let ListTasksRequest { service, node } = request.get_ref();
        let given = |text: &str| !text.is_empty();
        let service = given(service).then(|| resolve::service(&state, service)).transpose()?;
        let node = given(node).then(|| resolve::node(&state, node, asked)).transpose()?;
        let wanted = state.tasks().filter(|task| {
            service.as_ref().is_none_or(|service| task.service == service.id)
                && node.as_ref().is_none_or(|node| task.node == Some(node.id))
        });
        let tasks = wanted.map(|task| to_wire(&state, task)).collect();
        Ok(Response::new(ListTasksResponse { tasks }))
    }

    async fn get(
        &self,
        request: Request<GetTaskRequest>,
    ) -> Result<Response<GetTaskResponse>, Status> {
        let state = self.manager()?.current().await?;
        let task = resolve::task(&state, &request.get_ref().task)?;
        Ok(Response::new(GetTaskResponse { task: Some(to_wire(&state, &task)) }))
    }
}
