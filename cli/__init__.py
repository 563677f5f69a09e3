"""vpcep-rename, the operator's command: uses the function's domain and Huawei adapter, or a deployed stack."""
