-- The services' users: each has what its role gives, and no more. `ctl migrate` makes the roles first. All of it can be run again.
CREATE USER IF NOT EXISTS sink IDENTIFIED WITH no_password;
GRANT partners_writer TO sink;
CREATE USER IF NOT EXISTS report IDENTIFIED WITH no_password;
CREATE USER IF NOT EXISTS export IDENTIFIED WITH no_password;
GRANT partners_every_workspace TO report, export;
-- Grafana writes nothing, whatever a query of a panel says. readonly is 2, because its data source sends max_execution_time with each query.
CREATE USER IF NOT EXISTS grafana IDENTIFIED WITH no_password SETTINGS readonly = 2;
GRANT partners_every_workspace TO grafana;
