//! Reads the Service of `pgnorth publish` and the rights on it, which the publisher needs even if Kubernetes is not a
//! source of discovery. Writes nothing: a SelfSubjectAccessReview is not stored.

use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api as Objects, PostParams};

use super::kubernetes::{DEADLINE, bounded, no_answer};
use crate::config::{Doctor, Kubernetes};
use crate::doctor::facts::{Answer, ApiFailure, Publisher, Right};
use crate::doctor::judge::rights;
use crate::kubernetes::{Access, error_message};
use crate::publish;

/// Collects the facts if Kubernetes is not a source of discovery; otherwise they are among the facts of the source.
pub(super) async fn collect(settings: &Doctor) -> Option<Result<Publisher, ApiFailure>> {
    if settings.service.is_none() || settings.proxy.discovery.kubernetes.is_some() {
        return None;
    }
    let (client, namespace, version) = match connect(settings.namespace.as_deref()).await {
        Ok(connected) => connected,
        Err(failure) => return Some(Err(failure)),
    };
    let review = async |right| {
        let name = name_of(settings, right);
        (right, is_granted(&client, &namespace, right, name).await)
    };
    let rights = join_all(rights::of_publisher(settings).into_iter().map(review));
    let (rights, service) = tokio::join!(rights, published(&client, &namespace, settings));
    Some(Ok(Publisher {
        namespace,
        version,
        rights,
        service,
    }))
}

/// Finds the credentials and makes one request with them. Returns the client, the namespace and the API's version.
pub(super) async fn connect(namespace: Option<&str>) -> Result<(Client, String, Answer<String>), ApiFailure> {
    let access = Access::new().await;
    let access = access.map_err(|error| ApiFailure::NoCredentials(error.to_string()))?;
    let missing = access.missing().borrow().clone();
    if let Some(missing) = missing {
        return Err(ApiFailure::NoCredentials(missing));
    }
    let connection = access.connection().await;
    let client = connection.client.clone();
    let version = match tokio::time::timeout(DEADLINE, client.apiserver_version()).await {
        Ok(Ok(version)) => Ok(version.git_version),
        Ok(Err(kube::Error::Api(status))) if status.code == 401 => {
            return Err(ApiFailure::Unauthorized(status.message));
        }
        // Any answer proves the connection.
        Ok(Err(error @ kube::Error::Api(_))) => Err(error_message(&error)),
        Ok(Err(error)) => return Err(ApiFailure::Unreachable(error_message(&error))),
        Err(_) => return Err(ApiFailure::Unreachable(no_answer())),
    };
    let namespace = namespace.map_or_else(|| connection.namespace.clone(), str::to_owned);
    Ok((client, namespace, version))
}

/// Returns the name of the object that a right of the publisher concerns; `None` for any object of its resource.
pub(super) fn name_of(settings: &Doctor, right: Right) -> Option<String> {
    match (right.resource, right.verb) {
        ("services", _) | ("endpoints", "update") => settings.service.clone(),
        ("endpointslices", "get" | "update") => settings.service.as_deref().map(publish::slice_name),
        ("leases", "get" | "update") => settings.lease.clone(),
        _ => None,
    }
}

/// Returns true if these credentials have the right.
pub(super) async fn is_granted(client: &Client, namespace: &str, right: Right, name: Option<String>) -> Answer<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some(right.verb.to_owned()),
                group: Some(right.group.to_owned()),
                resource: Some(right.resource.to_owned()),
                name,
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Objects<SelfSubjectAccessReview> = Objects::all(client.clone());
    let answer = bounded(reviews.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Returns the Service, and the error if `pgnorth publish` would reject it.
pub(super) async fn published(client: &Client, namespace: &str, settings: &Doctor) -> Option<(String, Answer<()>)> {
    let service = settings.service.clone()?;
    let kubernetes = settings.proxy.discovery.kubernetes.as_ref();
    let publisher = publish::Settings {
        service: service.clone(),
        namespace: Some(namespace.to_owned()),
        scope: kubernetes.map(Kubernetes::objects),
        endpoints: settings.endpoints,
        lease: None,
        identity: String::new(),
    };
    let checked = publish::check(client.clone(), namespace, &publisher).await;
    Some((service, checked.map_err(|error| error.to_string())))
}
