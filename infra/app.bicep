// One Function App on a Flex Consumption plan of its own (a plan has one app), and its settings.

import { appShape, queueNames } from 'types.bicep'

param tags object
param location string
param name string
param app appShape
@description('The app\'s identity, which is its role in PostgreSQL, too.')
param identityName string
param storageName string
param insightsName string
param databaseHost string
param namespaceHost string
param jobsQueue string
param taskQueues queueNames
@description('The subnet that the app\'s calls leave from; empty without a network.')
param subnetId string
param retentionDays int
param settings object

// host.json: maxConcurrentCalls. The rest are threads for the janitor, requests and what else runs beside messages.
var concurrentCalls = 12
var reserveThreads = 8

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' existing = {
  name: identityName
}

resource storage 'Microsoft.Storage/storageAccounts@2024-01-01' existing = {
  name: storageName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: '${name}-plan'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true }
}

resource functionApp 'Microsoft.Web/sites@2024-04-01' = {
  name: name
  location: location
  // azd finds the app of a service by this tag.
  tags: union(tags, { 'azd-service-name': app.service })
  kind: 'functionapp,linux'
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identity.id}': {} } }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: { minTlsVersion: '1.2' }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storage.properties.primaryEndpoints.blob}code-${app.service}'
          authentication: { type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identity.id }
        }
      }
      runtime: { name: 'python', version: '3.12' }
      scaleAndConcurrency: {
        instanceMemoryMB: app.instanceMemory
        maximumInstanceCount: app.maximumInstances
      }
    }
  }

  resource appSettings 'config' = {
    name: 'appsettings'
    properties: union(settings, {
      // The Functions host's own storage and telemetry, by identity.
      AzureWebJobsStorage__accountName: storageName
      AzureWebJobsStorage__credential: 'managedidentity'
      AzureWebJobsStorage__clientId: identity.properties.clientId
      APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identity.properties.clientId};Authorization=AAD'
      // The identity that the app's own code uses where nothing else names one.
      AZURE_CLIENT_ID: identity.properties.clientId
      ServiceBusConnection__fullyQualifiedNamespace: namespaceHost
      ServiceBusConnection__credential: 'managedidentity'
      ServiceBusConnection__clientId: identity.properties.clientId
      COREMACHINE_DATABASE_URL: 'host=${databaseHost} user=${identityName} dbname=coremachine sslmode=require'
      COREMACHINE_DATABASE_AUTH: 'entra'
      COREMACHINE_APP_MODE: app.mode
      COREMACHINE_JOBS_QUEUE: jobsQueue
      COREMACHINE_TASK_QUEUES: join(map(items(taskQueues), queue => '${queue.key}=${queue.value}'), ',')
      PYTHON_THREADPOOL_THREAD_COUNT: '${app.queueFunctions * concurrentCalls + reserveThreads}'
    }, app.mode == 'worker' ? { COREMACHINE_WORKER_QUEUES: join(app.queues, ',') } : {}, retentionDays == 0 ? {} : { COREMACHINE_RETENTION_DAYS: '${retentionDays}' })
  }

  // Code is deployed with Entra ID, never with a publishing password.
  resource noFtp 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: { allow: false }
  }

  resource noScm 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: { allow: false }
  }
}

output id string = functionApp.id
output url string = 'https://${functionApp.properties.defaultHostName}'
