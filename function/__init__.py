"""Renames VPC endpoint services of Huawei Cloud in response to events."""
