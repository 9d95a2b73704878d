"""Documents of Kubernetes as input: policies, and what policies ask about namespaces, service accounts and pods.

``convert.convert_foreign`` is the way in: it says whether a document is one of these, checks it as strictly as Kubernetes does, and gives
the resources of our own model that mean the same. ``policies.policy_spec`` does that for the stored kind StagedKubernetesNetworkPolicy.
"""
