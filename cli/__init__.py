"""vpcep-rename, the operator's command: over the domain and the Huawei adapter of the function, or through a stack."""
