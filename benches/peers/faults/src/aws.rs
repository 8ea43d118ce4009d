//! The lazy identity cache of `aws-smithy-runtime`, which every AWS client has by default.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_smithy_async::{rt::sleep::TokioSleep, time::SystemTimeSource};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::{
    identity::{
        Identity, IdentityFuture, ResolveCachedIdentity as _, ResolveIdentity, SharedIdentityCache,
        SharedIdentityResolver,
    },
    runtime_components::{RuntimeComponents, RuntimeComponentsBuilder},
};
use aws_smithy_types::config_bag::ConfigBag;
use tower::BoxError;

use crate::{
    herd::Client,
    servers::{AuthorizationServer, Servers},
};

pub(crate) struct Aws(Arc<Inner>);

struct Inner {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
    config: ConfigBag,
}

impl Aws {
    /// With the default settings, or with another load timeout than theirs.
    pub(crate) fn new(servers: &Servers, load_timeout: Option<Duration>) -> Result<Self, BoxError> {
        let mut cache = IdentityCache::lazy();
        cache.set_load_timeout(load_timeout);
        let components = RuntimeComponentsBuilder::for_tests()
            .with_time_source(Some(SystemTimeSource::new()))
            .with_sleep_impl(Some(TokioSleep::new()))
            .build()?;
        Ok(Self(Arc::new(Inner {
            cache: cache.build(),
            resolver: SharedIdentityResolver::new(Resolver(servers.tokens.clone())),
            components,
            config: ConfigBag::base(),
        })))
    }
}

impl Client for Aws {
    fn call(&self) -> impl Future<Output = bool> + Send + 'static {
        let inner = Arc::clone(&self.0);
        async move {
            let resolver = inner.resolver.clone();
            let identity =
                inner
                    .cache
                    .resolve_cached_identity(resolver, &inner.components, &inner.config);
            identity.await.is_ok()
        }
    }
}

/// Gets an identity from our authorization server.
#[derive(Debug)]
struct Resolver(AuthorizationServer);

impl ResolveIdentity for Resolver {
    fn resolve_identity<'a>(
        &'a self,
        _: &'a RuntimeComponents,
        _: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async {
            let issued = self.0.issue().await?;
            let ends = SystemTime::now() + Duration::from_secs(issued.seconds);
            Ok(Identity::new(issued.token, Some(ends)))
        })
    }
}
