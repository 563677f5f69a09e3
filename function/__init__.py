"""Renames VPC endpoint services of Huawei Cloud from events."""
